"""Signing in with an OpenID Connect provider, and with a one-time link."""

from __future__ import annotations

import base64
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
import requests
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone
from social_core.backends.open_id_connect import OpenIdConnectAuth
from social_django.models import UserSocialAuth

from apps.tenancy.actors import system
from apps.tenancy.models import AuditEvent, SignInLink, User, UserToken
from apps.tenancy.services import accounts
from tests.tenancy.provider import CLIENT_ID, CLIENT_SECRET, KEY, OTHER_KEY, Claims, Provider

JSON, HTML = "application/json", "text/html,application/xhtml+xml,*/*;q=0.8"
pytestmark = pytest.mark.django_db


def configure(settings: Any, issuer: str | None) -> None:
    """Make ``issuer`` the identity provider, as the environment would."""
    settings.CONFIG = replace(settings.CONFIG, oidc_issuer=issuer)
    settings.SOCIAL_AUTH_OIDC_OIDC_ENDPOINT = issuer
    settings.SOCIAL_AUTH_OIDC_KEY, settings.SOCIAL_AUTH_OIDC_SECRET = CLIENT_ID, CLIENT_SECRET
    # A port may come back with another provider behind it.
    OpenIdConnectAuth.get_openid_configuration.invalidate()
    OpenIdConnectAuth.get_jwks_keys_for_uri.invalidate()


@pytest.fixture
def provider(settings: Any) -> Iterator[Provider]:
    running = Provider()
    configure(settings, running.issuer)
    yield running
    running.stop()


@pytest.fixture
def client() -> Client:
    return Client()


def begin(client: Client, provider: Provider, accept: str = JSON, path: str = "/auth/login") -> str:
    """Log in up to the provider's answer: the callback's query."""
    response = client.get(path, headers={"Accept": accept})
    assert response.status_code == 302
    return provider.authorize(response["Location"])


def finish(client: Client, query: str, accept: str = JSON) -> Any:
    return client.get(f"/auth/callback?{query}", headers={"Accept": accept})


def sign_in(client: Client, provider: Provider, accept: str = JSON) -> Any:
    return finish(client, begin(client, provider, accept), accept)


def nothing_came_of_it() -> bool:
    """Neither an account nor a credential, a session of anybody, or an event."""
    signed_in = [s for s in Session.objects.all() if "_auth_user_id" in s.get_decoded()]
    models = (User, UserSocialAuth, UserToken, AuditEvent)
    return not signed_in and not any(model._base_manager.exists() for model in models)


# With a provider that is nobody's test double


@pytest.fixture
def real_issuer() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    people = [
        {"sub": "ada", "email": "ada@acme.example", "email_verified": True, "name": "Ada Lovelace"},
        {"sub": "bob", "email": "bob@acme.example", "email_verified": True, "name": "Bob"},
    ]
    claims = [argument for person in people for argument in ("--user-claims", json.dumps(person))]
    program = Path(sys.executable).with_name("oidc-provider-mock")
    process = subprocess.Popen([program, "-p", str(port), *claims], stderr=subprocess.DEVNULL)
    issuer = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            requests.get(f"{issuer}/.well-known/openid-configuration", timeout=1)
            break
        except requests.ConnectionError:
            time.sleep(0.05)
    yield issuer
    process.terminate()
    process.wait()


def walk(site: str, accept: str, subject: str) -> tuple[requests.Session, requests.Response]:
    """The whole flow over HTTP, up to the callback's answer."""
    session = requests.Session()
    session.headers["Accept"] = accept
    at_provider = session.get(f"{site}/auth/login", timeout=10)
    granted = session.post(at_provider.url, data={"sub": subject}, allow_redirects=False, timeout=10)
    return session, session.get(granted.headers["Location"], allow_redirects=False, timeout=10)


@pytest.mark.django_db(transaction=True)
def test_a_program_gets_a_token_that_works(live_server: Any, settings: Any, real_issuer: str) -> None:
    configure(settings, real_issuer)

    session, response = walk(live_server.url, JSON, "ada")

    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"token", "expires_at", "user"}
    assert body["user"]["email"] == "ada@acme.example"
    assert body["user"]["name"] == "Ada Lovelace"
    assert not session.cookies.get_dict()
    me = requests.get(f"{live_server.url}/api/v1/me", headers={"Authorization": f"Bearer {body['token']}"}, timeout=10)
    assert me.status_code == 200
    assert me.json()["user"]["id"] == body["user"]["id"]
    assert User.objects.count() == UserToken.objects.count() == UserSocialAuth.objects.count() == 1

    _, again = walk(live_server.url, JSON, "ada")

    assert again.json()["user"]["id"] == body["user"]["id"]
    assert (User.objects.count(), UserToken.objects.count()) == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_a_browser_gets_a_session(live_server: Any, settings: Any, real_issuer: str) -> None:
    configure(settings, real_issuer)

    session, response = walk(live_server.url, HTML, "bob")

    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")
    stored = Session.objects.get(session_key=session.cookies["sessionid"]).get_decoded()
    assert stored["_auth_user_id"] == str(User.objects.get(email="bob@acme.example").pk)
    assert not UserToken.objects.exists()


# The flow's own checks


def test_the_request_to_the_provider(client: Client, provider: Provider) -> None:
    first = client.get("/auth/login")

    url = urlsplit(first["Location"])
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{provider.issuer}/authorization_endpoint"
    assert query["code_challenge_method"] == "S256"
    assert len(query["code_challenge"]) == 43
    assert len(query["state"]) >= 32
    assert len(query["nonce"]) >= 32
    assert query["redirect_uri"] == "http://testserver/auth/callback"
    assert set(query["scope"].split()) == {"openid", "email", "profile"}
    assert first["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    other = parse_qs(urlsplit(client.get("/auth/login")["Location"]).query)
    assert {other[name][0] for name in ("state", "nonce", "code_challenge")}.isdisjoint(query.values())


def with_query(**changes: str | None) -> Callable[[str], str]:
    def change(query: str) -> str:
        fields = {name: values[0] for name, values in parse_qs(query).items()} | changes
        return urlencode({name: value for name, value in fields.items() if value is not None})

    return change


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
def test_a_tampered_callback(client: Client, provider: Provider, change: Callable[[str], str], accept: str) -> None:
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
    assert nothing_came_of_it()


def said(**changes: Any) -> Callable[[Claims], Claims]:
    """A lie: these claims instead; without those that are None."""
    return lambda claims: {name: value for name, value in (claims | changes).items() if value is not None}


LONG_AGO = int(time.time()) - 3600


@pytest.mark.parametrize(
    "lie",
    [
        said(nonce="another"),
        said(nonce=None),
        said(nonce=["list"]),
        said(aud="another client"),
        said(aud=[CLIENT_ID, "another client"]),
        said(azp="another client"),
        said(aud=None),
        said(iss="https://issuer.example"),
        said(iss=None),
        said(exp=LONG_AGO),
        said(exp=None),
        said(iat=LONG_AGO),
        said(iat=None),
        said(nbf=int(time.time()) + 3600),
        said(sub=None),
        said(sub="somebody else than userinfo says"),
        said(at_hash="of another token"),
    ],
)
def test_an_id_token_that_is_not_ours(client: Client, provider: Provider, lie: Callable[[Claims], Claims]) -> None:
    provider.lie = lie

    response = sign_in(client, provider)

    assert response.status_code == 401
    assert nothing_came_of_it()


def _none(claims: Claims) -> str:
    return jwt.encode(claims, "", "none", headers={"kid": "1"})


def _symmetric(claims: Claims) -> str:
    # The classic confusion: the public key, or the client's secret, taken for a shared one.
    return jwt.encode(claims, CLIENT_SECRET * 2, "HS256", headers={"kid": "1"})


def _other_key(claims: Claims) -> str:
    return jwt.encode(claims, OTHER_KEY, "RS256", headers={"kid": "1"})


def _unknown_key(claims: Claims) -> str:
    return jwt.encode(claims, OTHER_KEY, "RS256", headers={"kid": "2"})


def _altered(claims: Claims) -> str:
    header, _, signature = jwt.encode(claims, KEY, "RS256", headers={"kid": "1"}).split(".")
    body = base64.urlsafe_b64encode(json.dumps({**claims, "email": "eve@acme.example"}).encode()).rstrip(b"=").decode()
    return f"{header}.{body}.{signature}"


@pytest.mark.parametrize("sign", [_none, _symmetric, _other_key, _unknown_key, _altered, lambda claims: "no.j.wt"])
def test_an_id_token_that_the_provider_did_not_sign(
    client: Client, provider: Provider, sign: Callable[[Claims], str]
) -> None:
    provider.sign = sign

    response = sign_in(client, provider)

    assert response.status_code == 401
    assert nothing_came_of_it()


def test_a_callback_serves_once(client: Client, provider: Provider) -> None:
    query = begin(client, provider)
    assert finish(client, query).status_code == 200

    again = finish(client, query)

    assert again.status_code == 401
    assert provider.requests.count("/token_endpoint") == 1
    assert (User.objects.count(), UserToken.objects.count()) == (1, 1)


def test_a_failed_callback_spends_the_state_too(client: Client, provider: Provider) -> None:
    query = begin(client, provider)
    provider.answers["/userinfo_endpoint"] = (500, {})
    assert finish(client, query).status_code == 503
    del provider.answers["/userinfo_endpoint"]

    assert finish(client, query).status_code == 401
    assert nothing_came_of_it()


@pytest.mark.parametrize("victim_began", [True, False])
def test_another_session_s_callback(client: Client, provider: Provider, victim_began: bool) -> None:
    """Login CSRF: somebody's browser is sent to the attacker's callback."""
    query = begin(client, provider, HTML)
    victim = Client()
    if victim_began:
        begin(victim, provider, HTML)

    response = finish(victim, query, HTML)

    assert response.status_code == 401
    assert nothing_came_of_it()
    assert "/token_endpoint" not in provider.requests


def test_another_session_s_code(client: Client, provider: Provider) -> None:
    """PKCE: a code that was given to one session is worth nothing in another."""
    stolen = parse_qs(begin(client, provider))["code"][0]
    other = Client()

    response = finish(other, with_query(code=stolen)(begin(other, provider)))

    assert response.status_code == 401
    assert nothing_came_of_it()


def test_no_session_survives_a_program_s_sign_in(client: Client, provider: Provider) -> None:
    assert sign_in(client, provider).status_code == 200

    assert not Session.objects.exists()
    assert client.cookies["sessionid"].value == ""


def test_the_session_s_key_changes_with_the_sign_in(client: Client, provider: Provider) -> None:
    query = begin(client, provider, HTML)
    before = client.cookies["sessionid"].value

    assert finish(client, query, HTML).status_code == 302

    after = client.cookies["sessionid"].value
    assert after != before
    assert [row.session_key for row in Session.objects.all()] == [after]
    cookie = client.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


@pytest.mark.parametrize("accept", [JSON, HTML])
def test_nothing_of_the_provider_s_is_kept(
    client: Client, provider: Provider, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        sign_in(client, provider, accept)

    assert len(provider.tokens) == 5
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = [row[0] for row in cursor.fetchall()]
        dump = ""
        for table in tables:
            cursor.execute(f'SELECT string_agg(t::text, chr(10)) FROM "{table}" AS t')
            dump += f"{cursor.fetchone()[0]}\n"
    dump += "\n".join(str(session.get_decoded()) for session in Session.objects.all())
    assert "ada@acme.example" in dump
    assert caplog.records
    for token in provider.tokens:
        assert token not in dump
        assert token not in caplog.text
    identity = UserSocialAuth.objects.get()
    assert (identity.provider, identity.uid, identity.extra_data) == ("oidc", f"{provider.issuer}#1", {})


# Who it is


def test_another_issuer_s_same_subject_is_another_person(client: Client, provider: Provider, settings: Any) -> None:
    first = sign_in(client, provider).json()["user"]["id"]
    other = Provider()
    other.claims["email"] = "ada@elsewhere.example"
    configure(settings, other.issuer)

    second = sign_in(client, other).json()["user"]["id"]
    other.stop()

    assert second != first
    assert set(UserSocialAuth.objects.values_list("uid", flat=True)) == {f"{provider.issuer}#1", f"{other.issuer}#1"}


def test_a_provider_that_calls_itself_another(client: Client, provider: Provider) -> None:
    status, document = provider._answer("/.well-known/openid-configuration", {}, "")
    provider.answers["/.well-known/openid-configuration"] = (status, document | {"issuer": "https://issuer.example"})
    provider.lie = said(iss="https://issuer.example")

    assert sign_in(client, provider).status_code == 401
    assert nothing_came_of_it()


def test_a_new_e_mail_address_does_not_make_another_account(client: Client, provider: Provider) -> None:
    first = sign_in(client, provider).json()["user"]["id"]
    provider.claims["email"] = "lovelace@acme.example"

    assert sign_in(client, provider).json()["user"]["id"] == first
    assert User.objects.get().email == "ada@acme.example"


def test_a_verified_address_claims_its_invitation_once(client: Client, provider: Provider) -> None:
    invited = accounts.account_for_invitation("ADA@acme.example")

    first = sign_in(client, provider).json()["user"]
    provider.claims["sub"] = "2"
    second = sign_in(Client(), provider).json()["user"]

    assert first["id"] == str(invited.pk)
    assert second["id"] != first["id"]
    stranger = User.objects.get(pk=second["id"])
    assert (stranger.email, stranger.email_verified) == ("ada@acme.example", False)
    claims = AuditEvent.objects.filter(action="account.claim")
    assert [event.resource_id for event in claims] == [str(invited.pk)]
    assert accounts.account_for_invitation("ada@acme.example") == invited


@pytest.mark.parametrize(
    ("claims", "userinfo"),
    [
        ({"email_verified": False}, {}),
        ({"email_verified": None}, {}),
        ({"email_verified": "true"}, {}),
        # What is verified is the ID token's address; userinfo then names somebody else's.
        ({"email": "eve@acme.example"}, {"email": "ada@acme.example", "email_verified": False}),
    ],
)
def test_an_address_that_is_not_verified_claims_nothing(
    client: Client, provider: Provider, claims: Claims, userinfo: Claims
) -> None:
    invited = accounts.account_for_invitation("ada@acme.example")
    provider.claims |= claims
    provider.userinfo = userinfo

    made = sign_in(client, provider).json()["user"]

    assert made["id"] != str(invited.pk)
    account = User.objects.get(pk=made["id"])
    assert (account.email, account.email_verified) == ("ada@acme.example", False)
    assert not invited.social_auth.exists()


def test_an_inactive_account(client: Client, provider: Provider) -> None:
    sign_in(client, provider)
    User.objects.update(is_active=False)
    tokens, events = UserToken.objects.count(), AuditEvent.objects.count()

    for accept in (JSON, HTML):
        assert sign_in(client, provider, accept).status_code == 401
    assert (UserToken.objects.count(), AuditEvent.objects.count()) == (tokens, events)
    assert not any("_auth_user_id" in session.get_decoded() for session in Session.objects.all())


def test_an_inactive_invitation_is_not_claimed(client: Client, provider: Provider) -> None:
    accounts.account_for_invitation("ada@acme.example")
    User.objects.update(is_active=False)

    assert sign_in(client, provider).status_code == 401
    assert User.objects.count() == 1
    assert not UserSocialAuth.objects.exists()


@pytest.mark.parametrize(
    ("claims", "email", "name"),
    [
        ({"name": "A\x00da"}, "ada@acme.example", "Ada"),
        ({"name": "x" * 300}, "ada@acme.example", "x" * 200),
        ({"name": ["Ada"]}, "ada@acme.example", ""),
        ({"name": None, "email": None}, "", ""),
        ({"email": f"{'a' * 60}@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}.example"}, "", "Ada"),
        ({"email": "ada\x00@acme.example"}, "", "Ada"),
        ({"email": "no address"}, "", "Ada"),
        ({"email": {"a": 1}}, "", "Ada"),
    ],
)
def test_odd_claims(client: Client, provider: Provider, claims: Claims, email: str, name: str) -> None:
    provider.claims |= claims

    assert sign_in(client, provider).status_code == 200
    account = User.objects.get()
    assert (account.email, account.name, account.email_verified) == (email, name, bool(email))


@pytest.mark.parametrize("subject", ["x" * 300, "a\x00b"])
def test_a_subject_that_cannot_be_stored(client: Client, provider: Provider, subject: str) -> None:
    provider.claims["sub"] = subject

    assert sign_in(client, provider).status_code == 401
    assert nothing_came_of_it()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("invited", [True, False])
@pytest.mark.parametrize("subjects", [("1", "1", "1", "1"), ("1", "2", "3", "4")])
def test_callbacks_at_once(provider: Provider, subjects: tuple[str, ...], invited: bool) -> None:
    if invited:
        accounts.account_for_invitation("ada@acme.example")
    barrier = Barrier(len(subjects))
    provider.before_userinfo = lambda: barrier.wait(10)
    began = []
    for subject in subjects:
        provider.claims["sub"] = subject
        client = Client()
        began.append((client, begin(client, provider)))
    answers: list[Any] = []

    def callback(client: Client, query: str) -> None:
        answers.append(finish(client, query))
        connection.close()

    threads = [Thread(target=callback, args=each) for each in began]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answer.status_code for answer in answers] == [200] * 4
    people = len(set(subjects))
    assert len({answer.json()["user"]["id"] for answer in answers}) == people
    assert (User.objects.count(), UserSocialAuth.objects.count()) == (people, people)
    assert User.objects.filter(email="ada@acme.example", email_verified=True).count() == 1
    actions = list(AuditEvent.objects.filter(action__startswith="account.").values_list("action", flat=True))
    assert sorted(actions) == (["account.claim"] if invited else ["account.create"]) + ["account.create"] * (people - 1)


# Round it


@pytest.mark.parametrize("path", ["/admin/tenancy/user/", "/api/docs?x=1", "http://testserver/api/docs"])
def test_next(client: Client, provider: Provider, path: str) -> None:
    query = begin(client, provider, HTML, f"/auth/login?{urlencode({'next': path})}")

    response = finish(client, query, HTML)

    assert (response.status_code, response["Location"]) == (302, path)


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "http:evil.example",
        "https:///evil.example",
        "javascript:alert(1)",
        "http://testserver@evil.example/",
        "http://testserver.evil.example/",
        "/\t/evil.example",
        "\n//evil.example",
        "",
    ],
)
def test_next_leads_nowhere_else(client: Client, provider: Provider, path: str) -> None:
    query = begin(client, provider, HTML, f"/auth/login?{urlencode({'next': path})}")

    assert finish(client, query, HTML)["Location"] == "/admin/"


def test_next_is_of_the_last_attempt(client: Client, provider: Provider) -> None:
    begin(client, provider, HTML, "/auth/login?next=/elsewhere")

    assert sign_in(client, provider, HTML)["Location"] == "/admin/"


@pytest.mark.parametrize("path", ["/auth/login", "/auth/callback?code=1&state=2"])
def test_without_a_provider(client: Client, settings: Any, path: str) -> None:
    settings.CONFIG = replace(settings.CONFIG, oidc_issuer=None)

    response = client.get(path, headers={"Accept": JSON})
    page = client.get(path, headers={"Accept": HTML})

    assert (response.status_code, response["Content-Type"]) == (503, "application/problem+json")
    assert "No identity provider is configured" in response.json()["detail"]
    assert (page.status_code, page["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert "No identity provider is configured" in page.content.decode()


@pytest.mark.parametrize("accept", [JSON, HTML])
def test_a_provider_that_is_not_there(client: Client, provider: Provider, accept: str) -> None:
    provider.stop()

    response = client.get("/auth/login", headers={"Accept": accept})

    assert response.status_code == 503
    assert 10 <= int(response["Retry-After"]) <= 20


@pytest.mark.parametrize("path", ["/token_endpoint", "/jwks_uri", "/userinfo_endpoint"])
@pytest.mark.parametrize("answer", [(500, {}), (503, {"error": "temporarily_unavailable"}), (429, {})])
def test_a_provider_that_fails(client: Client, provider: Provider, path: str, answer: tuple[int, Any]) -> None:
    provider.answers[path] = answer

    response = sign_in(client, provider)

    assert response.status_code == 503
    assert 10 <= int(response["Retry-After"]) <= 20
    assert nothing_came_of_it()


@pytest.mark.parametrize("path", ["/token_endpoint", "/jwks_uri", "/userinfo_endpoint"])
@pytest.mark.parametrize("body", [None, [], {}, {"keys": None}, {"access_token": 1}, {"sub": {}}, "text"])
def test_a_provider_that_talks_nonsense(client: Client, provider: Provider, path: str, body: Any) -> None:
    provider.answers[path] = (200, body)

    assert sign_in(client, provider).status_code == 401
    assert nothing_came_of_it()


def test_a_client_that_the_provider_does_not_know(client: Client, provider: Provider) -> None:
    provider.answers["/token_endpoint"] = (401, {"error": "invalid_client", "error_description": CLIENT_SECRET})

    response = sign_in(client, provider)

    assert response.status_code == 503
    assert CLIENT_SECRET not in response.content.decode()
    assert nothing_came_of_it()


def test_twenty_sign_ins_an_address(provider: Provider) -> None:
    for _ in range(20):
        assert sign_in(Client(), provider).status_code == 200

    response = Client().get("/auth/login", headers={"Accept": JSON})
    page = Client().get("/auth/callback", headers={"Accept": HTML})
    elsewhere = Client(REMOTE_ADDR="192.0.2.7").get("/auth/login", headers={"Accept": JSON})

    assert response.status_code == page.status_code == 429
    for refused in (response, page):
        assert 1 <= int(refused["Retry-After"]) <= 61 + 30
    assert elsewhere.status_code == 302
    assert UserToken.objects.count() == 20


@pytest.mark.parametrize("path", ["/auth/login", "/auth/callback"])
def test_methods(client: Client, provider: Provider, path: str) -> None:
    response = client.post(path, headers={"Accept": JSON})

    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD, OPTIONS")


# One-time links


@pytest.fixture
def person() -> User:
    return accounts.account_for_invitation("ada@acme.example")


def link_of(person: User) -> str:
    return f"/auth/link/{accounts.create_sign_in_link(user=person, actor=system('test'))}"


def press(client: Client, path: str, accept: str = HTML) -> Any:
    """Open the page and press its button."""
    token = client.get(path, headers={"Accept": accept}).cookies["csrftoken"].value
    return client.post(path, {"csrfmiddlewaretoken": token}, headers={"Accept": accept})


def test_a_link_signs_in_once(person: User) -> None:
    client, path = Client(enforce_csrf_checks=True), link_of(person)

    response = press(client, path)

    assert (response.status_code, response["Location"]) == (302, "/admin/")
    session = Session.objects.get(session_key=client.cookies["sessionid"].value).get_decoded()
    assert session["_auth_user_id"] == str(person.pk)
    event = AuditEvent.objects.get(action="session.sign_in")
    assert (event.actor_id, event.changes, event.ip) == (str(person.pk), {"by": "link"}, "127.0.0.1")

    other = Client(enforce_csrf_checks=True)
    again, as_json = press(other, path), press(other, path, JSON)

    assert (again.status_code, as_json.status_code) == (401, 401)
    assert "was used, has expired, or never existed" in again.content.decode()
    assert as_json["Content-Type"] == "application/problem+json"
    assert "sessionid" not in other.cookies


def test_looking_at_a_link_does_not_use_it(person: User) -> None:
    client, path = Client(enforce_csrf_checks=True), link_of(person)

    pages = [client.get(path) for _ in range(25)]

    assert {page.status_code for page in pages} == {200}
    assert pages[0]["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    assert pages[0]["Referrer-Policy"] == "same-origin"
    assert SignInLink.objects.get().used_at is None
    assert client.post(path).status_code == 403
    assert SignInLink.objects.get().used_at is None
    assert press(client, path).status_code == 302


@pytest.mark.parametrize("case", ["expired", "unknown", "inactive"])
def test_a_link_that_is_not_good(person: User, case: str) -> None:
    path = link_of(person)
    if case == "expired":
        SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif case == "inactive":
        User.objects.update(is_active=False)
    else:
        path = "/auth/link/bor_usr_nothing"

    assert press(client := Client(), path).status_code == 401
    assert "sessionid" not in client.cookies
    assert SignInLink.objects.get().used_at is None
    assert not AuditEvent.objects.filter(action="session.sign_in").exists()


def test_a_link_takes_over_a_session(person: User) -> None:
    """Somebody else was signed in there: nothing of theirs is left."""
    client = Client()
    other = accounts.account_for_invitation("bob@acme.example")
    press(client, link_of(other))
    before = client.cookies["sessionid"].value

    press(client, link_of(person))

    assert client.cookies["sessionid"].value != before
    assert [s.get_decoded()["_auth_user_id"] for s in Session.objects.all()] == [str(person.pk)]


@pytest.mark.django_db(transaction=True)
def test_a_link_pressed_twice_at_once(person: User) -> None:
    path, barrier, codes = link_of(person), Barrier(8), []

    def attempt() -> None:
        client = Client()
        client.get(path)
        barrier.wait(10)
        codes.append(client.post(path).status_code)
        connection.close()

    threads = [Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(codes) == [302] + [401] * 7
    assert AuditEvent.objects.filter(action="session.sign_in").count() == 1


def test_twenty_links_an_address(person: User) -> None:
    client = Client()
    codes = [client.post(f"/auth/link/bor_usr_{attempt}").status_code for attempt in range(21)]

    assert codes == [401] * 20 + [429]
    assert press(Client(REMOTE_ADDR="192.0.2.7"), link_of(person)).status_code == 302
