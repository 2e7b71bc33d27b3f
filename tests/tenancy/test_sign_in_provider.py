"""An identity provider that is missing, fails, or rejects this service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from tests.tenancy.provider import CLIENT_SECRET, Provider
from tests.tenancy.sign_in_flow import HTML, JSON, nothing_was_created, sign_in

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/auth/login", "/auth/callback?code=1&state=2"])
def test_sign_in_without_provider_returns_503(client: Client, settings: Any, path: str) -> None:
    settings.CONFIG = replace(settings.CONFIG, oidc_issuer=None)

    response = client.get(path, headers={"Accept": JSON})
    page = client.get(path, headers={"Accept": HTML})

    assert (response.status_code, response["Content-Type"]) == (503, "application/problem+json")
    assert "No identity provider is configured" in response.json()["detail"]
    assert (page.status_code, page["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert "No identity provider is configured" in page.content.decode()


@pytest.mark.parametrize("accept", [JSON, HTML])
def test_sign_in_with_unreachable_provider_returns_503(client: Client, provider: Provider, accept: str) -> None:
    provider.stop()

    response = client.get("/auth/login", headers={"Accept": accept})

    assert response.status_code == 503
    assert 10 <= int(response["Retry-After"]) <= 20


@pytest.mark.parametrize("path", ["/token_endpoint", "/jwks_uri", "/userinfo_endpoint"])
@pytest.mark.parametrize("failure", [(500, {}), (503, {"error": "temporarily_unavailable"}), (429, {})])
def test_sign_in_with_failing_provider_returns_503(
    client: Client, provider: Provider, path: str, failure: tuple[int, Any]
) -> None:
    provider.responses[path] = failure

    response = sign_in(client, provider)

    assert response.status_code == 503
    assert 10 <= int(response["Retry-After"]) <= 20
    assert nothing_was_created()


@pytest.mark.parametrize("path", ["/token_endpoint", "/jwks_uri", "/userinfo_endpoint"])
@pytest.mark.parametrize("body", [None, [], {}, {"keys": None}, {"access_token": 1}, {"sub": {}}, "text"])
def test_sign_in_returns_401_if_provider_response_is_invalid(
    client: Client, provider: Provider, path: str, body: Any
) -> None:
    provider.responses[path] = (200, body)

    assert sign_in(client, provider).status_code == 401
    assert nothing_was_created()


def test_sign_in_returns_503_if_provider_rejects_client_credentials(client: Client, provider: Provider) -> None:
    provider.responses["/token_endpoint"] = (401, {"error": "invalid_client", "error_description": CLIENT_SECRET})

    response = sign_in(client, provider)

    assert response.status_code == 503
    assert CLIENT_SECRET not in response.content.decode()
    assert nothing_was_created()
