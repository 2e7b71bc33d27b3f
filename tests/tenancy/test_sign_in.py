"""Sign-in with an OpenID Connect provider: the whole flow, its parts, redirects, limits and HTTP methods."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import oidc_provider_mock  # type: ignore[import-untyped]  # the library ships no types
import pytest
import requests
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from social_django.models import UserSocialAuth
from werkzeug.serving import make_server

from apps.tenancy.models import User, UserToken
from tests.tenancy.provider import Provider
from tests.tenancy.sign_in_flow import HTML, JSON, begin, configure, finish, sign_in

pytestmark = pytest.mark.django_db


# Sign-ins with the package oidc_provider_mock, a provider that was written independently of ``Provider``


@pytest.fixture
def real_issuer() -> Iterator[str]:
    people = [
        {"sub": "ada", "email": "ada@acme.example", "email_verified": True, "name": "Ada Lovelace"},
        {"sub": "bob", "email": "bob@acme.example", "email_verified": True, "name": "Bob"},
    ]
    provider = oidc_provider_mock.app(
        user_claims=[oidc_provider_mock.User(sub=str(claims["sub"]), claims=claims) for claims in people]
    )
    # The system chooses the port when the server starts to listen, so that no other server can use it first.
    server = make_server("127.0.0.1", 0, provider, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def sign_in_over_http(site: str, accept: str, subject: str) -> tuple[requests.Session, requests.Response]:
    """Run the whole flow over HTTP and return the session and the callback's response."""
    session = requests.Session()
    session.headers["Accept"] = accept
    at_provider = session.get(f"{site}/auth/login", timeout=10)
    granted = session.post(at_provider.url, data={"sub": subject}, allow_redirects=False, timeout=10)
    return session, session.get(granted.headers["Location"], allow_redirects=False, timeout=10)


@pytest.mark.django_db(transaction=True)
def test_program_sign_in_returns_working_token(live_server: Any, settings: Any, real_issuer: str) -> None:
    configure(settings, real_issuer)

    session, response = sign_in_over_http(live_server.url, JSON, "ada")

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

    _, again = sign_in_over_http(live_server.url, JSON, "ada")

    assert again.json()["user"]["id"] == body["user"]["id"]
    assert (User.objects.count(), UserToken.objects.count()) == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_browser_sign_in_creates_session(live_server: Any, settings: Any, real_issuer: str) -> None:
    configure(settings, real_issuer)

    session, response = sign_in_over_http(live_server.url, HTML, "bob")

    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")
    stored = Session.objects.get(session_key=session.cookies["sessionid"]).get_decoded()
    assert stored["_auth_user_id"] == str(User.objects.get(email="bob@acme.example").pk)
    assert not UserToken.objects.exists()


# The parts of the flow


def test_authorization_request_uses_pkce_state_and_nonce(client: Client, provider: Provider) -> None:
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


def test_program_sign_in_leaves_no_session(client: Client, provider: Provider) -> None:
    assert sign_in(client, provider).status_code == 200

    assert not Session.objects.exists()
    assert client.cookies["sessionid"].value == ""


def test_session_key_changes_at_sign_in(client: Client, provider: Provider) -> None:
    query = begin(client, provider, HTML)
    before = client.cookies["sessionid"].value

    assert finish(client, query, HTML).status_code == 302

    after = client.cookies["sessionid"].value
    assert after != before
    assert [row.session_key for row in Session.objects.all()] == [after]
    cookie = client.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


@pytest.mark.parametrize("accept", [JSON, HTML])
def test_provider_tokens_are_neither_stored_nor_logged(
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


# Redirects, limits and methods


@pytest.mark.parametrize("path", ["/admin/tenancy/user/", "/api/docs?x=1", "http://testserver/api/docs"])
def test_browser_is_redirected_to_next_url_on_same_host(client: Client, provider: Provider, path: str) -> None:
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
def test_next_parameter_cannot_redirect_to_another_site(client: Client, provider: Provider, path: str) -> None:
    query = begin(client, provider, HTML, f"/auth/login?{urlencode({'next': path})}")

    assert finish(client, query, HTML)["Location"] == "/admin/"


def test_next_path_of_abandoned_sign_in_is_ignored(client: Client, provider: Provider) -> None:
    begin(client, provider, HTML, "/auth/login?next=/elsewhere")

    assert sign_in(client, provider, HTML)["Location"] == "/admin/"


@pytest.mark.usefixtures("limit_clock")
def test_sign_ins_are_limited_to_twenty_per_minute_and_address(provider: Provider) -> None:
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
def test_login_and_callback_reject_post_requests(client: Client, provider: Provider, path: str) -> None:
    response = client.post(path, headers={"Accept": JSON})

    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD, OPTIONS")
