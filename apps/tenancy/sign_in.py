"""OpenID Connect: the provider's identity to an account. The flow itself is social-auth's (PKCE, state, nonce)."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from social_core.backends.open_id_connect import OpenIdConnectAuth
from social_core.exceptions import AuthResponseError

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import User
from byteor_cloud.errors import Unauthenticated

LONGEST_ID = 255  # of social_django's column
LONGEST_NAME, LONGEST_EMAIL = 200, 254  # of ours


class OpenIdConnect(OpenIdConnectAuth[HttpResponse]):
    """The generic provider; an identity is issuer and subject together, so another issuer is another person."""

    name = "oidc"
    ID_TOKEN_MAX_AGE = 600

    def id_token_issuer(self) -> str:
        """The discovered issuer, which must be the one that the settings name (OpenID Connect Discovery 4.3)."""
        issuer: str = super().id_token_issuer()
        if issuer.rstrip("/") != self.oidc_endpoint():
            raise AuthResponseError(self, claim="issuer", code="invalid_claim", stage="token_validation")
        return issuer

    def validate_userinfo_sub(self, userinfo: Any) -> Any:
        """The subject must be there, not only be right where it is (OpenID Connect Core 5.3.2)."""
        if not isinstance(userinfo, dict) or not isinstance(userinfo.get("sub"), str):
            raise AuthResponseError(self, claim="sub", code="missing_claim", stage="user_info")
        return super().validate_userinfo_sub(userinfo)

    def get_user_id(self, details: dict[str, Any], response: dict[str, Any]) -> str:
        """``<issuer>#<subject>``."""
        identity = f"{self.id_token_issuer()}#{super().get_user_id(details, response)}"  # type: ignore[no-untyped-call]  # untyped
        if len(identity) > LONGEST_ID or "\x00" in identity:
            raise AuthResponseError(self, claim="sub", code="invalid_claim", stage="pipeline")
        return identity


def claim_or_create_account(
    backend: Any,
    response: dict[str, Any],
    details: dict[str, Any],
    uid: str,
    user: User | None = None,
    id_key: str = "",
    request_id: str = "",
    ip: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """A pipeline step. An unclaimed account is taken over only with a verified address; else a new one is made.

    The identity is bound in the same transaction: of two that claim one invitation, the second finds it taken.
    """
    if user is not None:
        return {"is_new": False}
    claims = [each for each in (response, backend.id_token) if each and each.get("email") == details.get("email")]
    verified = any(each.get("email_verified") is True for each in claims)
    identities = backend.strategy.storage.user

    @transaction.atomic
    def bind() -> dict[str, Any]:
        account, action = _account(_email(details.get("email")), verified=verified, name=details.get("fullname"))
        social = identities.create_social_auth(account, uid, backend.name, id_key=id_key)
        actor = Actor("user", str(account.pk), account.email, request_id, ip)
        audit.record_of_person(action, person=account, actor=actor, resource=("user", account.pk))
        return {"user": account, "social": social, "is_new": True}

    try:
        return bind()
    except IntegrityError:
        # Another callback was faster, with this identity or with this address; now it is there to be seen.
        social = identities.get_social_auth(backend.name, uid, id_key=id_key)
        return bind() if social is None else {"user": social.user, "social": social, "is_new": False}


def _account(email: str, *, verified: bool, name: object) -> tuple[User, str]:
    if email and verified:
        standing = User.objects.select_for_update().filter(email__iexact=email, email_verified=True).first()
        if standing is not None and not standing.social_auth.exists():
            if not standing.is_active:
                raise Unauthenticated("This account is not active.")
            return standing, "account.claim"
        # Someone else's identity holds the address: this is another person, without it.
        verified = standing is None
    # People choose what they are called: it may be anything.
    called = name.replace("\x00", "")[:LONGEST_NAME] if isinstance(name, str) else ""
    account = User.objects.create(email=email, email_verified=bool(email) and verified, name=called)
    return account, "account.create"


def _email(claim: object) -> str:
    """The address as the provider gives it; empty when it is none."""
    email = claim.strip() if isinstance(claim, str) else ""
    try:
        EmailValidator()(email)
    except ValidationError:
        return ""
    return email if len(email) <= LONGEST_EMAIL else ""
