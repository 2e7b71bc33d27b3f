"""Bearer credentials to callers. Each class takes its own family, and leaves the others to theirs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Any, ClassVar

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from apps.tenancy.access import Principal
from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family, digest, family_of
from apps.tenancy.models import Credential, OrganizationKey, UserToken
from byteor_cloud import space
from byteor_cloud.errors import Unauthenticated

USE_NOTED_EVERY = timedelta(minutes=1)
# One answer for unknown, spent, expired and revoked: no oracle.
UNUSABLE = "The credential is unknown, expired or revoked."


_LONGEST_ADDRESS = 128
_HOST_AND_PORT = re.compile(
    r"\[(?P<bracketed>[^\[\]]+)\](:[0-9]{1,5})?|(?P<v4>[0-9.]+)(:[0-9]{1,5})?|(?P<v6>[0-9A-Fa-f:.]+(%[^,\s]*)?)",
    re.ASCII,
)


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
    """Return the caller's address as PostgreSQL's inet takes it, or None where it is not known.

    Behind trusted proxies it is the one that the outermost of them names. Where that is no address, or the header
    has fewer entries than there are proxies, it is the address of whoever is connected.
    """
    hops: int = settings.CONFIG.trusted_proxies
    if hops:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").rsplit(",", hops)[-hops:]
        if len(forwarded) == hops and (named := _address(forwarded[0].rpartition(",")[2])) is not None:
            return named
    return _address(request.META.get("REMOTE_ADDR", ""))


def _address(text: str) -> str | None:
    """The address in ``a.b.c.d``, ``a.b.c.d:port``, ``[v6]:port`` or ``v6%zone``, in one notation; else None."""
    match = _HOST_AND_PORT.fullmatch(text.strip()[:_LONGEST_ADDRESS])
    if match is None:
        return None
    try:
        address = ip_address((match["bracketed"] or match["v4"] or match["v6"]).partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


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
            self._note_use(credential, now)
        actor_kind, actor_id, display = self.who(credential)
        actor = Actor(actor_kind, actor_id, display, request.META.get("HTTP_X_REQUEST_ID", ""), client_ip(request))
        principal = Principal(self.model.family, actor, credential, **self.belongs(credential))
        return principal, credential

    def _note_use(self, credential: Credential, now: datetime) -> None:
        """Remember when the credential was used last; a full disk must not keep anybody from reading."""
        if space.is_low_for_database():
            return
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
        try:
            self.model._base_manager.filter(stale, pk=credential.pk).update(last_used_at=now)
        except DatabaseError as error:
            if not space.is_disk_error(error):
                raise

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
