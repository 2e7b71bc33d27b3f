"""OpenID Connect sign-in: map the provider's identity to an account. social-auth runs the flow (PKCE, state, nonce)."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from social_core.backends.open_id_connect import OpenIdConnectAuth
from social_core.exceptions import AuthResponseError

from apps.tenancy.models import User
from apps.tenancy.services import accounts

LONGEST_ID = 255  # the length of social_django's column
LONGEST_NAME, LONGEST_EMAIL = 200, 254  # the lengths of our columns


class OpenIdConnect(OpenIdConnectAuth[HttpResponse]):
    """The generic OpenID Connect provider. A person is identified by issuer and subject together."""

    name = "oidc"
    ID_TOKEN_MAX_AGE = 600

    def id_token_issuer(self) -> str:
        """Return the discovered issuer. Raises AuthResponseError unless the settings have the same issuer.

        A trailing slash is ignored, because the settings contain the issuer without it. OpenID Connect Discovery 4.3
        requires equal issuers.
        """
        issuer: str = super().id_token_issuer()
        if issuer.rstrip("/") != self.oidc_endpoint():
            raise AuthResponseError(self, claim="issuer", code="invalid_claim", stage="token_validation")
        return issuer

    def validate_userinfo_sub(self, userinfo: Any) -> Any:
        """Reject user info whose subject is missing (social-auth would accept that) or differs from the ID token's."""
        if not isinstance(userinfo, dict) or not isinstance(userinfo.get("sub"), str):
            raise AuthResponseError(self, claim="sub", code="missing_claim", stage="user_info")
        return super().validate_userinfo_sub(userinfo)

    def get_user_id(self, details: dict[str, Any], response: dict[str, Any]) -> str:
        """Return ``<issuer>#<subject>``. Raises AuthResponseError if this text cannot be stored."""
        identity = f"{self.id_token_issuer()}#{super().get_user_id(details, response)}"  # type: ignore[no-untyped-call]  # the library is untyped
        if len(identity) > LONGEST_ID or "\x00" in identity:
            raise AuthResponseError(self, claim="sub", code="invalid_claim", stage="pipeline")
        return identity


def find_or_bind_account(
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
    """Find, claim or create the account of an identity that signs in: a step of social-auth's pipeline.

    The identity is bound in the transaction that claims or creates the account, so that only one of two concurrent
    sign-ins can claim an invited account.
    """
    if user is not None:
        return {"is_new": False}
    claims = [each for each in (response, backend.id_token) if each and each.get("email") == details.get("email")]
    verified = any(each.get("email_verified") is True for each in claims)
    identities = backend.strategy.storage.user

    @transaction.atomic
    def bind() -> dict[str, Any]:
        account = accounts.claim_or_create_account(
            _email(details.get("email")),
            is_verified=verified,
            name=_name(details.get("fullname")),
            request_id=request_id,
            ip=ip,
        )
        social = identities.create_social_auth(account, uid, backend.name, id_key=id_key)
        return {"user": account, "social": social, "is_new": True}

    try:
        return bind()
    except IntegrityError:
        # A concurrent sign-in or invitation has just committed this identity or address, so its rows can be read.
        social = identities.get_social_auth(backend.name, uid, id_key=id_key)
        return bind() if social is None else {"user": social.user, "social": social, "is_new": False}


def _email(claim: object) -> str:
    """Return the provider's claim if it is a valid e-mail address that fits the column, otherwise an empty string."""
    email = claim.strip() if isinstance(claim, str) else ""
    try:
        EmailValidator()(email)
    except ValidationError:
        return ""
    return email if len(email) <= LONGEST_EMAIL else ""


def _name(claim: object) -> str:
    """Return the provider's claim, shortened and without NUL, which PostgreSQL rejects; empty if it is not a text."""
    return claim.replace("\x00", "")[:LONGEST_NAME] if isinstance(claim, str) else ""
