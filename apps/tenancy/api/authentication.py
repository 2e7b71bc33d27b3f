"""Bearer credentials to callers. Each class takes its own family, and leaves the others to theirs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from apps.tenancy.access import Principal
from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family, digest, family_of
from apps.tenancy.models import Credential, OrganizationKey, UserToken
from byteor_cloud.errors import Unauthenticated

USE_NOTED_EVERY = timedelta(minutes=1)
# One answer for unknown, spent, expired and revoked: no oracle.
UNUSABLE = "The credential is unknown, expired or revoked."


def bearer(request: HttpRequest | Request) -> str | None:
    """The text after ``Bearer``; None without an Authorization header. Raises Unauthenticated on another scheme."""
    header: str = request.META.get("HTTP_AUTHORIZATION", "")
    if not header:
        return None
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text or " " in text.strip():
        raise Unauthenticated("Send the credential as: Authorization: Bearer <token>.")
    return str(text.strip())


def client_ip(request: HttpRequest | Request) -> str | None:
    """The caller's address; that of a trusted proxy's client where there are trusted proxies."""
    hops: int = settings.CONFIG.trusted_proxies
    forwarded = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part.strip()]
    if hops and len(forwarded) >= hops:
        return str(forwarded[-hops])
    address: str | None = request.META.get("REMOTE_ADDR")
    return address or None


class CredentialAuthentication(BaseAuthentication):
    """Looks a credential up by the digest of its text; typos are refused without a query."""

    model: ClassVar[type[Credential]]

    def authenticate(self, request: Request) -> tuple[Principal, Credential] | None:
        """The caller, or None when the credential is another family's or missing. Raises Unauthenticated."""
        text = bearer(request)
        if text is None:
            return None
        family = family_of(text)
        if family is None:
            raise Unauthenticated("The credential is malformed or mistyped.")
        if family is not self.model.family:
            return None
        credential = self.queryset().filter(digest=digest(text)).first()
        if credential is None or not self.is_live(credential):
            raise Unauthenticated(UNUSABLE)
        now = timezone.now()
        if credential.last_used_at is None or credential.last_used_at < now - USE_NOTED_EVERY:
            stale = Q(last_used_at=None) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
            self.model._base_manager.filter(stale, pk=credential.pk).update(last_used_at=now)
        actor_kind, actor_id, display = self.who(credential)
        actor = Actor(actor_kind, actor_id, display, request.META.get("HTTP_X_REQUEST_ID", ""), client_ip(request))
        principal = Principal(self.model.family, actor, credential, **self.belongs(credential))
        return principal, credential

    def authenticate_header(self, request: Request) -> str:
        """Without it DRF would turn a 401 into a 403."""
        return "Bearer"

    def queryset(self) -> QuerySet[Any]:
        """Usable credentials, with what ``who`` and ``belongs`` read."""
        return self.model.objects.usable()

    def is_live(self, credential: Any) -> bool:
        """Whether what the credential belongs to still stands."""
        return True

    def who(self, credential: Any) -> tuple[Any, str, str]:
        """Kind, id and display name of the actor."""
        raise NotImplementedError  # pragma: no cover  every family says it

    def belongs(self, credential: Any) -> dict[str, Any]:
        """Fields of the Principal."""
        return {}


class UserTokenAuthentication(CredentialAuthentication):
    model = UserToken

    def queryset(self) -> QuerySet[Any]:
        return super().queryset().select_related("user")

    def is_live(self, credential: UserToken) -> bool:
        return credential.user.is_active

    def who(self, credential: UserToken) -> tuple[Any, str, str]:
        return "user", str(credential.user_id), credential.user.email

    def belongs(self, credential: UserToken) -> dict[str, Any]:
        return {"user": credential.user}


class OrganizationKeyAuthentication(CredentialAuthentication):
    model = OrganizationKey

    def queryset(self) -> QuerySet[Any]:
        return super().queryset().select_related("project")

    def is_live(self, credential: OrganizationKey) -> bool:
        return credential.project is None or credential.project.deleted_at is None

    def who(self, credential: OrganizationKey) -> tuple[Any, str, str]:
        return "organization_key", str(credential.pk), f"key {credential.name}"

    def belongs(self, credential: OrganizationKey) -> dict[str, Any]:
        return {"organization_id": credential.organization_id}


BEARER = (Family.USER, Family.ORGANIZATION)
