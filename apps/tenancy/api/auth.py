"""Signing in: the provider's flow for people, and the one-time link of ``bootstrap``."""

from __future__ import annotations

from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from social_core.actions import do_auth
from social_core.exceptions import SocialAuthBaseException
from social_django.utils import load_backend, load_strategy

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.api import limits
from apps.tenancy.api.authentication import client_ip
from apps.tenancy.api.serializers import UserSerializer
from apps.tenancy.models import User
from apps.tenancy.services import accounts, tokens
from byteor_cloud.api import problems
from byteor_cloud.errors import DomainError, Unauthenticated, Unavailable

CALLBACK = "/auth/callback"
BACKEND = "oidc"
DJANGO_BACKEND = "django.contrib.auth.backends.ModelBackend"
logger = structlog.get_logger(__name__)


class SignedInSerializer(serializers.Serializer[Any]):
    """The token of a finished sign-in, for callers that are no browser."""

    token = serializers.CharField()
    expires_at = serializers.DateTimeField()
    user = UserSerializer()


def wants_page(request: HttpRequest | Request) -> bool:
    """Whether a browser asks."""
    return "text/html" in request.META.get("HTTP_ACCEPT", "")


def _backend(request: HttpRequest) -> Any:
    if not settings.CONFIG.oidc_issuer:
        raise Unavailable("No identity provider is configured; use the one-time link of `manage.py bootstrap`.")
    strategy = load_strategy(request)
    return load_backend(strategy, BACKEND, redirect_uri=CALLBACK)


@method_decorator(never_cache, name="dispatch")
class _SignInView(APIView):
    """Sessions, not bearer credentials; errors as a page for browsers only."""

    authentication_classes = []
    permission_classes = []

    def handle_exception(self, exc: Exception) -> Response:
        """A page for a browser, problem+json for everybody else."""
        if isinstance(exc, SocialAuthBaseException):
            # What the provider said may hold codes or tokens: only the kind of failure is told.
            logger.warning("sign_in_failed", kind=type(exc).__name__)
            exc = Unauthenticated("The identity provider's answer was not accepted; start again at /auth/login.")
        elif isinstance(exc, OSError):
            logger.warning("identity_provider_unreachable", kind=type(exc).__name__)
            exc = Unavailable("The identity provider is not reachable.", retry_after=10)
        if wants_page(self.request) and isinstance(exc, DomainError):
            page = render(self.request._request, "sign_in_failed.html", {"error": exc}, status=exc.status)
            return page  # type: ignore[return-value]  # DRF passes any HttpResponse on
        return super().handle_exception(exc)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Count the attempt by address."""
        super().initial(request, *args, **kwargs)
        limits.count(f"sign-in:{client_ip(request)}", limits.SIGN_INS_PER_ADDRESS)


class LoginView(_SignInView):
    @extend_schema(
        responses={
            302: OpenApiResponse(description="To the identity provider."),
            503: OpenApiResponse(description="No identity provider is configured, or it is not reachable."),
        },
        parameters=[OpenApiParameter("next", str, description="Where a browser goes afterwards; a path.")],
    )
    def get(self, request: Request) -> HttpResponse:
        """Initiates the login flow; redirects to the identity provider."""
        return do_auth(_backend(request._request))  # type: ignore[no-any-return]  # untyped library


class CallbackView(_SignInView):
    @extend_schema(
        responses={
            200: SignedInSerializer,
            302: OpenApiResponse(description="A browser: signed in, on to the console."),
            401: OpenApiResponse(description="The provider's answer was not accepted."),
        },
        parameters=[OpenApiParameter("code", str), OpenApiParameter("state", str)],
    )
    def get(self, request: Request) -> HttpResponse:
        """Exchanges the authorization code for a session (browsers) or a user token (everybody else)."""
        backend = _backend(request._request)
        user = backend.complete(user=None)
        if not isinstance(user, User) or not user.is_active:
            raise Unauthenticated("This account is not active.")
        actor = Actor("user", str(user.pk), user.email, request.META.get("HTTP_X_REQUEST_ID", ""), client_ip(request))
        following = request._request.session.get("next") or "/admin/"
        audit.record("session.sign_in", actor=actor, scope=None, resource=("user", user.pk), changes={"by": "oidc"})
        if wants_page(request):
            login(request._request, user, backend=DJANGO_BACKEND)
            return redirect(following)
        request._request.session.flush()
        token, secret = tokens.create_user_token(user=user, name="sign-in", actor=actor)
        body = {"token": secret, "expires_at": token.expires_at, "user": user}
        return Response(SignedInSerializer(body).data)


@never_cache
def link(request: HttpRequest, secret: str) -> HttpResponse:
    """Spend a one-time link: ask first, so that a mail scanner that follows links does not use it up."""
    try:
        limits.count(f"sign-in:{client_ip(request)}", limits.SIGN_INS_PER_ADDRESS)
        if request.method != "POST":
            return render(request, "sign_in_link.html")
        user = accounts.spend_sign_in_link(secret, ip=client_ip(request))
    except DomainError as error:
        if not wants_page(request):
            return problems.respond(request, error)
        return render(request, "sign_in_failed.html", {"error": error}, status=error.status)
    login(request, user, backend=DJANGO_BACKEND)
    return HttpResponseRedirect("/admin/")
