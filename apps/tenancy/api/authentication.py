"""Bearer authentication: helpers, the base class, and the classes for user tokens and organization keys."""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import Any, ClassVar

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from apps.tenancy.access import Principal
from apps.tenancy.actors import Actor
from apps.tenancy.credentials import UNUSABLE, Family, credential_digest, family_of
from apps.tenancy.models import Credential, OrganizationKey, UserToken
from apps.tenancy.services.tokens import note_use
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.errors import Unauthenticated

_VERIFIED = "byteor.verified"  # a key of ``request.META``


_LONGEST_ADDRESS = 128
_HOST_AND_PORT = re.compile(
    r"\[(?P<bracketed>[^\[\]]+)\](:[0-9]{1,5})?|(?P<v4>[0-9.]+)(:[0-9]{1,5})?|(?P<v6>[0-9A-Fa-f:.]+(%[^,\s]*)?)",
    re.ASCII,
)


def bearer_credential(request: HttpRequest | Request) -> str | None:
    """Return the credential after ``Bearer``, or None if the Authorization header is missing or empty.

    Raises Unauthenticated for another scheme or a malformed header.
    """
    return bearer_in(request.META.get("HTTP_AUTHORIZATION", ""))


def bearer_in(header: str) -> str | None:
    """Return the credential in an Authorization header, as ``bearer_credential`` does."""
    if not header:
        return None
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text or " " in text.strip():
        raise Unauthenticated("Send the credential as: Authorization: Bearer <token>.")
    return str(text.strip())


def known_family(text: str) -> Family:
    """Return the family of a credential. Raises Unauthenticated if its form or checksum is wrong. Runs no query."""
    family = family_of(text)
    if family is None:
        raise Unauthenticated("The credential is malformed or mistyped.")
    return family


def note_verified(request: HttpRequest | Request, digest: str) -> None:
    """Mark the request's credential or session key as valid, so that only the caller's rate limit applies."""
    request.META[_VERIFIED] = digest


def verified_digest(request: HttpRequest) -> str | None:
    """Return the digest that was passed to ``note_verified``, or None if it was not called."""
    return request.META.get(_VERIFIED)


def client_ip(request: HttpRequest | Request) -> str | None:
    """Return the caller's IP address in a form that PostgreSQL's inet accepts, or None if it is unknown.

    Behind trusted proxies, this is the address that the outermost of them reports in X-Forwarded-For. If that entry is
    not an address, or the header has fewer entries than there are proxies, this is the address of the connected peer.
    """
    hops: int = settings.CONFIG.trusted_proxies
    if hops:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").rsplit(",", hops)[-hops:]
        if len(forwarded) == hops and (named := _address(forwarded[0].rpartition(",")[2])) is not None:
            return named
    return _address(request.META.get("REMOTE_ADDR", ""))


def _address(text: str) -> str | None:
    """Return the normalized address in a text such as ``a.b.c.d:port``, ``[v6]:port`` or ``v6%zone``, or None."""
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
    """Base of the authentication classes. Finds credentials by their digest. Rejects mistyped ones without a query."""

    model: ClassVar[type[Credential]]
    _by_digest: ClassVar[CompiledQuery[Any]]

    def __init_subclass__(cls) -> None:
        cls._by_digest = CompiledQuery(lambda digest, now: cls().queryset(now).filter(digest=digest), str, datetime)

    def authenticate(self, request: Request) -> tuple[Principal, Credential] | None:
        """Return the caller and the credential, or None if there is no credential or it belongs to another family.

        Raises Unauthenticated if the header or the credential is malformed, or if the credential is unknown, expired or
        revoked, or no longer live (``is_live``).
        """
        text = bearer_credential(request)
        if text is None:
            return None
        family = known_family(text)
        if family is not self.model.family:
            return None
        credential = self.find(credential_digest(text))
        if credential is None or not self.is_live(credential):
            raise Unauthenticated(UNUSABLE)
        note_use(credential)
        actor_kind, actor_id, display = self.actor_fields(credential)
        actor = Actor(actor_kind, actor_id, display, request.META.get("HTTP_X_REQUEST_ID", ""), client_ip(request))
        principal = Principal(self.model.family, actor, credential, **self.principal_fields(credential))
        return principal, credential

    def authenticate_header(self, request: Request) -> str:
        """Return the name of the authentication scheme."""
        return "Bearer"

    def queryset(self, now: datetime | None = None) -> QuerySet[Any]:
        """Return the usable credentials, joined with the rows that the other methods read."""
        return self.model.objects.usable(now)

    def find(self, digest: str) -> Any:
        """Return the usable credential with this digest, or None."""
        return self._by_digest.first(digest, timezone.now())

    def is_live(self, credential: Any) -> bool:
        """Return whether the owner of the credential (person, project, environment, agent) exists and is active."""
        return True

    def actor_fields(self, credential: Any) -> tuple[Any, str, str]:
        """Return the kind, id and display name of the actor."""
        raise NotImplementedError  # pragma: no cover  every subclass overrides it

    def principal_fields(self, credential: Any) -> dict[str, Any]:
        """Return the remaining fields of the Principal."""
        return {}


class UserTokenAuthentication(CredentialAuthentication):
    model = UserToken

    def queryset(self, now: datetime | None = None) -> QuerySet[Any]:
        return super().queryset(now).select_related("user")

    def is_live(self, credential: UserToken) -> bool:
        return credential.user.is_active

    def actor_fields(self, credential: UserToken) -> tuple[Any, str, str]:
        return "user", str(credential.user_id), credential.user.email

    def principal_fields(self, credential: UserToken) -> dict[str, Any]:
        return {"user": credential.user}


class OrganizationKeyAuthentication(CredentialAuthentication):
    model = OrganizationKey

    def queryset(self, now: datetime | None = None) -> QuerySet[Any]:
        return super().queryset(now).select_related("project")

    def is_live(self, credential: OrganizationKey) -> bool:
        return credential.project is None or credential.project.deleted_at is None

    def actor_fields(self, credential: OrganizationKey) -> tuple[Any, str, str]:
        return "organization_key", str(credential.pk), f"key {credential.name}"

    def principal_fields(self, credential: OrganizationKey) -> dict[str, Any]:
        return {"organization_id": credential.organization_id}


BEARER = (Family.USER, Family.ORGANIZATION)
