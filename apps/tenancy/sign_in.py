"""OpenID Connect: the provider's identity to an account. The flow itself is social-auth's (PKCE, state, nonce)."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from social_core.backends.open_id_connect import OpenIdConnectAuth

from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import User


class OpenIdConnect(OpenIdConnectAuth):  # type: ignore[misc]  # untyped library
    """The generic provider; an identity is issuer and subject together, so another issuer is another person."""

    name = "oidc"
    ID_TOKEN_MAX_AGE = 600

    def get_user_id(self, details: dict[str, Any], response: dict[str, Any]) -> str:
        """``<issuer>#<subject>``."""
        return f"{self.id_token_issuer()}#{super().get_user_id(details, response)}"


def claim_or_create_account(
    backend: Any,
    response: dict[str, Any],
    details: dict[str, Any],
    uid: str,
    user: User | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """A pipeline step. An unclaimed account is taken over only with a verified address; else a new one is made."""
    email = (details.get("email") or "").strip()
    verified = response.get("email_verified") is True or (backend.id_token or {}).get("email_verified") is True
    if user is not None:
        return {"is_new": False}
    with transaction.atomic():
        if email and verified:
            standing = User.objects.select_for_update().filter(email__iexact=email, email_verified=True).first()
            if standing is not None and not standing.social_auth.exists():
                _record("account.claim", standing)
                return {"user": standing, "is_new": True}
            # Someone else's identity holds the address: this is another person, without it.
            verified = standing is None
        account = User.objects.create(
            email=email, email_verified=bool(email) and verified, name=details.get("fullname") or ""
        )
        _record("account.create", account)
    return {"user": account, "is_new": True}


def _record(action: str, user: User) -> None:
    audit.record(action, actor=Actor("user", str(user.pk), user.email), scope=None, resource=("user", user.pk))
