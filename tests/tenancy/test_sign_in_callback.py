"""Callbacks from the provider: tampered, forged, repeated, from another session, or concurrent."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from django.db import connection
from django.test import Client
from social_django.models import UserSocialAuth

from apps.tenancy.models import AuditEvent, User, UserToken
from apps.tenancy.services import accounts
from tests.tenancy.provider import CLIENT_ID, CLIENT_SECRET, KEY, OTHER_KEY, Claims, Provider
from tests.tenancy.sign_in_flow import HTML, JSON, begin, finish, nothing_was_created, sign_in, with_claims, with_query

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("accept", [JSON, HTML])
@pytest.mark.parametrize(
    "change",
    [
        with_query(state="x" * 32),
        with_query(state=None),
        with_query(state=""),
        with_query(state="x" * 5000),
        with_query(code="stolen"),
        with_query(code=None),
        with_query(error="access_denied"),
        with_query(error="invalid_request", error_description="<script>"),
        lambda query: "",
    ],
    ids=["state", "no-state", "empty-state", "long-state", "code", "no-code", "denied", "error", "nothing"],
)
def test_tampered_or_denied_callback_is_rejected(
    client: Client, provider: Provider, change: Callable[[str], str], accept: str
) -> None:
    query = begin(client, provider, accept)

    response = finish(client, change(query), accept)

    assert response.status_code == 401
    if accept == JSON:
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["type"] == "urn:byteor:problem:unauthenticated"
    else:
        assert response["Content-Type"].startswith("text/html")
    assert b"stolen" not in response.content
    assert b"script>" not in response.content
    assert nothing_was_created()


@pytest.mark.parametrize(
    "query",
    ["error=x", "error=temporarily_unavailable&state=x", "error=server_error&state=", "denied=1", "code=x&state=x"],
)
@pytest.mark.parametrize("accept", [JSON, HTML])
def test_callback_without_started_sign_in_is_rejected(
    client: Client, provider: Provider, query: str, accept: str
) -> None:
    response = finish(client, query, accept)

    assert response.status_code == 401
    assert nothing_was_created()


LONG_AGO = int(time.time()) - 3600


@pytest.mark.parametrize(
    "change_claims",
    [
        with_claims(nonce="another"),
        with_claims(nonce=None),
        with_claims(nonce=["list"]),
        with_claims(aud="another client"),
        with_claims(aud=[CLIENT_ID, "another client"]),
        with_claims(azp="another client"),
        with_claims(aud=None),
        with_claims(iss="https://issuer.example"),
        with_claims(iss=None),
        with_claims(exp=LONG_AGO),
        with_claims(exp=None),
        with_claims(iat=LONG_AGO),
        with_claims(iat=None),
        with_claims(nbf=int(time.time()) + 3600),
        with_claims(sub=None),
        with_claims(sub="somebody else than userinfo says"),
        with_claims(at_hash="of another token"),
    ],
)
def test_id_token_with_wrong_or_missing_claims_is_rejected(
    client: Client, provider: Provider, change_claims: Callable[[Claims], Claims]
) -> None:
    provider.change_claims = change_claims

    response = sign_in(client, provider)

    assert response.status_code == 401
    assert nothing_was_created()


def _none(claims: Claims) -> str:
    return jwt.encode(claims, "", "none", headers={"kid": "1"})


def _symmetric(claims: Claims) -> str:
    # Algorithm confusion: the shared key is the client's secret.
    return jwt.encode(claims, CLIENT_SECRET, "HS256", headers={"kid": "1"})


def _other_key(claims: Claims) -> str:
    return jwt.encode(claims, OTHER_KEY, "RS256", headers={"kid": "1"})


def _unknown_key(claims: Claims) -> str:
    return jwt.encode(claims, OTHER_KEY, "RS256", headers={"kid": "2"})


def _altered(claims: Claims) -> str:
    header, _, signature = jwt.encode(claims, KEY, "RS256", headers={"kid": "1"}).split(".")
    body = base64.urlsafe_b64encode(json.dumps({**claims, "email": "eve@acme.example"}).encode()).rstrip(b"=").decode()
    return f"{header}.{body}.{signature}"


@pytest.mark.parametrize("sign", [_none, _symmetric, _other_key, _unknown_key, _altered, lambda claims: "no.j.wt"])
def test_id_token_not_signed_by_provider_is_rejected(
    client: Client, provider: Provider, sign: Callable[[Claims], str]
) -> None:
    provider.sign = sign

    response = sign_in(client, provider)

    assert response.status_code == 401
    assert nothing_was_created()


def test_callback_can_be_used_once(client: Client, provider: Provider) -> None:
    query = begin(client, provider)
    assert finish(client, query).status_code == 200

    again = finish(client, query)

    assert again.status_code == 401
    assert provider.requests.count("/token_endpoint") == 1
    assert (User.objects.count(), UserToken.objects.count()) == (1, 1)


def test_failed_sign_in_callback_cannot_be_repeated(client: Client, provider: Provider) -> None:
    query = begin(client, provider)
    provider.responses["/userinfo_endpoint"] = (500, {})
    assert finish(client, query).status_code == 503
    del provider.responses["/userinfo_endpoint"]

    assert finish(client, query).status_code == 401
    assert nothing_was_created()


@pytest.mark.parametrize("victim_started", [True, False])
def test_callback_of_another_session_is_rejected(client: Client, provider: Provider, victim_started: bool) -> None:
    """In a login CSRF attack, the victim's browser is sent to the attacker's callback."""
    query = begin(client, provider, HTML)
    victim = Client()
    if victim_started:
        begin(victim, provider, HTML)

    response = finish(victim, query, HTML)

    assert response.status_code == 401
    assert nothing_was_created()
    assert "/token_endpoint" not in provider.requests


def test_authorization_code_of_another_session_is_rejected(client: Client, provider: Provider) -> None:
    """PKCE makes an authorization code useless in any other session."""
    stolen = parse_qs(begin(client, provider))["code"][0]
    other = Client()

    response = finish(other, with_query(code=stolen)(begin(other, provider)))

    assert response.status_code == 401
    assert nothing_was_created()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("invited", [True, False])
@pytest.mark.parametrize("subjects", [("1", "1", "1", "1"), ("1", "2", "3", "4")])
def test_concurrent_callbacks_lead_to_one_account_per_person(
    provider: Provider, subjects: tuple[str, ...], invited: bool
) -> None:
    if invited:
        accounts.get_or_create_account("ada@acme.example")
    barrier = Barrier(len(subjects))
    provider.before_userinfo = lambda: barrier.wait(10)
    started = []
    for subject in subjects:
        provider.claims["sub"] = subject
        client = Client()
        started.append((client, begin(client, provider)))
    responses: list[Any] = []

    def callback(client: Client, query: str) -> None:
        responses.append(finish(client, query))
        connection.close()

    threads = [Thread(target=callback, args=each) for each in started]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [response.status_code for response in responses] == [200] * 4
    people = len(set(subjects))
    assert len({response.json()["user"]["id"] for response in responses}) == people
    assert (User.objects.count(), UserSocialAuth.objects.count()) == (people, people)
    assert User.objects.filter(email="ada@acme.example", email_verified=True).count() == 1
    actions = list(AuditEvent.objects.filter(action__startswith="account.").values_list("action", flat=True))
    assert sorted(actions) == (["account.claim"] if invited else ["account.create"]) + ["account.create"] * (people - 1)
