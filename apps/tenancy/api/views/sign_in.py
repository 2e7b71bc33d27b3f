"""Sign-in with the identity provider or with a one-time link."""

from __future__ import annotations

from typing import Any, ClassVar

import structlog
from django.conf import settings
from django.contrib.auth import login
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from social_core.actions import do_auth
from social_core.exceptions import AuthConfigurationError, AuthProviderError, SocialAuthBaseException
from social_django.utils import load_backend, load_strategy

from apps.tenancy.actors import Actor
from apps.tenancy.api import limits
from apps.tenancy.api.authentication import client_ip
from apps.tenancy.api.serializers.credentials import UserSerializer
from apps.tenancy.models import User
from apps.tenancy.services import accounts, audit, tokens
from byteor_cloud.api import problems
from byteor_cloud.api.declared import DeclaringView
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import text_parameter
from byteor_cloud.errors import DomainError, Unauthenticated, Unavailable

CALLBACK = "/auth/callback"
_START_AGAIN = (
    "The identity provider did not confirm the sign-in, its response is not valid, or the sign-in was not started in "
    "this session. Start again at /auth/login."
)
BACKEND = "oidc"
DJANGO_BACKEND = "apps.tenancy.sessions.Accounts"
logger = structlog.get_logger(__name__)


class SignedInSerializer(serializers.Serializer[Any]):
    """The user token that a sign-in returns to programs. Browsers get a session instead."""

    token = serializers.CharField()
    expires_at = serializers.DateTimeField()
    user = UserSerializer()
    descriptions = {
        "token": "A user token for the API.",
        "expires_at": "When the token expires.",
        "user": "The person who signed in.",
    }


def _failed(request: HttpRequest, error: DomainError) -> HttpResponse:
    """Return the error as a page for a browser, and as problem+json for other clients."""
    response = problems.respond(request, error)
    if not problems.accepts_html(request):
        return response
    page = render(request, "sign_in_failed.html", {"error": error}, status=error.status)
    if "Retry-After" in response:
        page["Retry-After"] = response["Retry-After"]
    return page


def _backend(request: HttpRequest) -> Any:
    if not settings.CONFIG.oidc_issuer:
        raise Unavailable("No identity provider is configured. Use a one-time link from `manage.py sign_in_link`.")
    strategy = load_strategy(request)  # type: ignore[no-untyped-call]  # the library is untyped
    return load_backend(strategy, BACKEND, redirect_uri=CALLBACK)  # type: ignore[no-untyped-call]  # the library is untyped


def _check_started_here(backend: Any) -> None:
    """Raise Unauthenticated unless this session started a sign-in with the callback's state.

    social-auth checks the state only after it has reported an error in the callback, and anybody can forge a callback.
    """
    state = backend.get_request_state()
    if not state or backend.strategy.session_get(backend.transaction_key(state)) is None:
        raise Unauthenticated(_START_AGAIN)


def _to_domain_error(error: SocialAuthBaseException) -> DomainError:
    """Return the error that the caller sees for a failed sign-in.

    It does not contain the provider's message, which may contain codes or tokens.
    """
    if isinstance(error, AuthProviderError):
        logger.warning("identity_provider_unavailable", code=error.code, stage=error.stage)
        return Unavailable(
            "The identity provider does not respond, or returned an error. Try again later.", retry_after=10
        )
    if isinstance(error, AuthConfigurationError) and error.stage != "callback":  # anybody can forge a callback's error
        logger.error("identity_provider_misconfigured", code=error.code, stage=error.stage)
        detail = (
            "The sign-in with the identity provider is not configured correctly. Contact the installation operator."
        )
        return Unavailable(detail)
    logger.warning("sign_in_refused", kind=type(error).__name__, code=error.code, stage=error.stage)
    return Unauthenticated(_START_AGAIN)


@method_decorator(never_cache, name="dispatch")
class _SignInView(DeclaringView, APIView):
    """Base of the sign-in views. They use sessions, not bearer credentials, and show errors to browsers as pages."""

    authentication_classes = []
    permission_classes = []
    step: ClassVar[str]

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Ignore the ``Accept`` header: browsers may not accept JSON, but they get pages and redirects anyway."""
        return super().perform_content_negotiation(request, force=True)

    def handle_exception(self, exc: Exception) -> Response:
        """Return a page for a browser, and problem+json for other clients."""
        if isinstance(exc, SocialAuthBaseException):
            exc = _to_domain_error(exc)
        if problems.accepts_html(self.request):
            # DRF accepts any HttpResponse here.
            return _failed(self.request._request, problems.as_domain_error(exc))  # type: ignore[return-value]
        return super().handle_exception(exc)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Count the request in the rate limit of the client's address."""
        super().initial(request, *args, **kwargs)
        _count(request, self.step)


def _count(request: HttpRequest | Request, step: str) -> None:
    # Each step has its own count, so that a sign-in with two steps does not count twice.
    limits.count_sign_in(step, client_ip(request))


class LoginView(_SignInView):
    tag = Tag.AUTHENTICATION
    step = "begin"

    @Operation(
        "startSignIn",
        None,
        parameters={"next": text_parameter("The path that the browser is redirected to after the sign-in.")},
        responses={
            302: OpenApiResponse(description="A redirect to the identity provider."),
            503: OpenApiResponse(
                description="The identity provider is not configured or is configured incorrectly, does not respond, "
                "or returned an error."
            ),
        },
    )
    def get(self, request: Request) -> HttpResponse:
        """Start signing in.

        Redirects to the identity provider (OpenID Connect). Returns 503 if no provider is configured, or if the
        provider is configured incorrectly, does not respond, or returns an error.
        """
        backend = _backend(request._request)
        request._request.session.pop("next", None)  # an abandoned sign-in may have left this value
        return do_auth(backend)  # type: ignore[no-any-return]  # the library is untyped


class CallbackView(_SignInView):
    tag = Tag.AUTHENTICATION
    step = "callback"

    @Operation(
        "finishSignIn",
        None,
        parameters={
            "code": text_parameter("The authorization code from the identity provider."),
            "state": text_parameter("The state with which the sign-in started."),
        },
        responses={
            200: SignedInSerializer,
            302: OpenApiResponse(description="The browser is signed in and redirected to the console."),
            401: OpenApiResponse(
                description="The provider did not confirm the sign-in, its response is not valid, the sign-in was not "
                "started in this session, or the account is not active."
            ),
            503: OpenApiResponse(
                description="The identity provider is not configured or is configured incorrectly, does not respond, "
                "or returned an error."
            ),
        },
    )
    def get(self, request: Request) -> HttpResponse:
        """Finish signing in.

        The identity provider redirects here with an authorization code. Browsers get a session of the console. Other
        clients get a user token.
        """
        session = request._request.session
        request_id, ip = request.META["HTTP_X_REQUEST_ID"], client_ip(request)
        backend = _backend(request._request)
        _check_started_here(backend)
        # social-auth checks the state (valid once) and the ID token with its nonce, and sends the code's PKCE verifier.
        user = backend.complete(user=None, request_id=request_id, ip=ip)
        if not isinstance(user, User) or not user.is_active:
            raise Unauthenticated("This account is not active. Contact the installation operator.")
        actor = Actor("user", str(user.pk), user.email, request_id, ip)
        with transaction.atomic():
            audit.record_of_person(
                "session.sign_in", person=user, actor=actor, resource=("user", user.pk), changes={"by": "oidc"}
            )
            if problems.accepts_html(request):
                next_path = session.pop("next", None) or settings.LOGIN_REDIRECT_URL
                login(request._request, user, backend=DJANGO_BACKEND)
                return redirect(next_path)
            session.flush()
            token, secret = tokens.create_user_token(user=user, name="sign-in", actor=actor)
        body = {"token": secret, "expires_at": token.expires_at, "user": user}
        return Response(SignedInSerializer(body).data)


@never_cache
def sign_in_with_link(request: HttpRequest, secret: str) -> HttpResponse:
    """Sign in with a one-time link. Ask for confirmation first, because mail scanners open links."""
    if request.method != "POST":
        return render(request, "sign_in_link.html")
    try:
        _count(request, "link")
        user = accounts.spend_sign_in_link(secret, ip=client_ip(request))
    except Exception as error:  # noqa: BLE001,RUF100  DRF's handler does the same for the other views
        return _failed(request, problems.as_domain_error(error))
    login(request, user, backend=DJANGO_BACKEND)
    return redirect(settings.LOGIN_REDIRECT_URL)
