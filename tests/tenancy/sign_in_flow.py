"""The steps of a sign-in with an OpenID Connect provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from django.contrib.sessions.models import Session
from django.test import Client
from social_core.backends.open_id_connect import OpenIdConnectAuth
from social_django.models import UserSocialAuth

from apps.tenancy.models import AuditEvent, User, UserToken
from tests.tenancy.provider import CLIENT_ID, CLIENT_SECRET, Claims, Provider

JSON, HTML = "application/json", "text/html,application/xhtml+xml,*/*;q=0.8"


def configure(settings: Any, issuer: str | None) -> None:
    """Configure the identity provider as environment variables would, or no provider if ``issuer`` is None."""
    settings.CONFIG = replace(settings.CONFIG, oidc_issuer=issuer)
    settings.SOCIAL_AUTH_OIDC_OIDC_ENDPOINT = issuer
    settings.SOCIAL_AUTH_OIDC_KEY, settings.SOCIAL_AUTH_OIDC_SECRET = CLIENT_ID, CLIENT_SECRET
    # Another test's provider may have used the same port.
    OpenIdConnectAuth.get_openid_configuration.invalidate()
    OpenIdConnectAuth.get_jwks_keys_for_uri.invalidate()


def begin(client: Client, provider: Provider, accept: str = JSON, path: str = "/auth/login") -> str:
    """Start a sign-in and return the query with which the provider redirects to the callback."""
    response = client.get(path, headers={"Accept": accept})
    assert response.status_code == 302
    return provider.authorize(response["Location"])


def finish(client: Client, query: str, accept: str = JSON) -> Any:
    return client.get(f"/auth/callback?{query}", headers={"Accept": accept})


def sign_in(client: Client, provider: Provider, accept: str = JSON) -> Any:
    return finish(client, begin(client, provider, accept), accept)


def nothing_was_created() -> bool:
    """Return whether there is no account, identity, user token, audit event, or session of a person."""
    signed_in = [s for s in Session.objects.all() if "_auth_user_id" in s.get_decoded()]
    models = (User, UserSocialAuth, UserToken, AuditEvent)
    return not signed_in and not any(model._base_manager.exists() for model in models)


def with_query(**changes: str | None) -> Callable[[str], str]:
    def change(query: str) -> str:
        fields = {name: values[0] for name, values in parse_qs(query).items()} | changes
        return urlencode({name: value for name, value in fields.items() if value is not None})

    return change


def with_claims(**changes: Any) -> Callable[[Claims], Claims]:
    """Return a function that replaces these claims, and removes those that are None."""
    return lambda claims: {name: value for name, value in (claims | changes).items() if value is not None}
