"""Public pages, error pages, and signing in to and out of the console."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client

from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent
from apps.tenancy.services import accounts
from byteor_cloud.api import problems
from tests.browser.filled import signed_in
from tests.worlds import World

TEMPLATES = Path(django_settings.BASE_DIR) / "templates"
PAGE = {"accept": "text/html,application/xhtml+xml"}


def policy(response: Any) -> dict[str, str]:
    """Return the content security policy by directive."""
    parts = (each.strip().partition(" ") for each in response.headers["Content-Security-Policy"].split(";"))
    return {name: value for name, _, value in parts}


@pytest.mark.parametrize(
    "address", ["/api/docs", "/api/redoc", "/api/schema", "/admin/", "/healthz", "/readyz", "/metrics"]
)
def test_start_page_links_to_api_docs_console_and_monitoring_endpoints(client: Client, address: str) -> None:
    page = client.get("/")

    assert page.status_code == 200
    assert f'href="{address}"' in page.text


@pytest.mark.parametrize(
    "template", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: str(path.relative_to(TEMPLATES))
)
def test_templates_contain_no_inline_scripts_or_external_urls(template: Path) -> None:
    text = template.read_text()

    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"\son\w+=", text) == []
    assert re.findall(r"(?:src|href)=[\"'](?:\w+:)?//", text) == []


@pytest.mark.django_db
def test_content_security_policy_allows_eval_in_console_but_not_on_public_pages(world: World) -> None:
    console = signed_in(world.viewer.user)

    assert policy(console.get("/admin/"))["script-src"] == "'self' 'unsafe-eval'"
    for address in ("/", "/admin/login/", "/api/docs", "/api/redoc", "/auth/link/x"):
        assert "script-src" not in policy(console.get(address))
        assert policy(console.get(address))["default-src"] == "'self'"


@pytest.mark.parametrize(
    ("path", "headers", "kind"),
    [
        ("/nowhere", PAGE, "text/html; charset=utf-8"),
        ("/nowhere", {"accept": "*/*"}, "application/problem+json"),
        ("/nowhere", {}, "application/problem+json"),
        ("/api/nowhere", PAGE, "application/problem+json"),
    ],
)
def test_unknown_url_returns_404_as_html_page_or_problem(
    client: Client, path: str, headers: dict[str, str], kind: str
) -> None:
    answer = client.get(path, headers={**headers, "x-request-id": "req-12345678"})

    assert (answer.status_code, answer.headers["Content-Type"]) == (404, kind)
    assert "There is no resource at this URL." in answer.text
    assert "req-12345678" in answer.text


def test_server_error_page_shows_request_id_and_no_traceback(rf: Any) -> None:
    page = problems.server_error(rf.get("/admin/", headers={**PAGE, "x-request-id": "req-12345678"}))

    assert page.status_code == 500
    assert "req-12345678" in page.content.decode()
    assert "Traceback" not in page.content.decode()


@pytest.mark.parametrize(("path", "kind"), [("/admin/logout/", "text/html; charset=utf-8")])
def test_form_without_csrf_token_is_refused(path: str, kind: str) -> None:
    answer = Client(enforce_csrf_checks=True).post(path, headers=PAGE)

    assert (answer.status_code, answer.headers["Content-Type"]) == (403, kind)
    assert "came from another site" in answer.text


def test_sign_in_page_without_provider_names_manage_py_commands(client: Client) -> None:
    asked = client.get("/admin/releases/deployment/", follow=True)

    assert asked.redirect_chain == [("/admin/login/?next=/admin/releases/deployment/", 302)]
    assert "manage.py bootstrap" in asked.text
    assert "manage.py sign_in_link" in asked.text
    assert "/auth/login" not in asked.text


@pytest.mark.parametrize(
    ("given", "following"),
    [("/admin/fleet/agent/?q=a%26b", "%2Fadmin%2Ffleet%2Fagent%2F%3Fq%3Da%2526b"), ("", "%2Fadmin%2F")],
)
def test_sign_in_page_links_to_provider(client: Client, settings: Any, given: str, following: str) -> None:
    settings.CONFIG = replace(settings.CONFIG, oidc_issuer="https://id.example")

    page = client.get("/admin/login/", {"next": given} if given else {})

    assert f'href="/auth/login?next={following}"' in page.text
    assert "manage.py" not in page.text


@pytest.mark.django_db
def test_sign_in_link_requires_confirmation(world: World) -> None:
    url = f"/auth/link/{accounts.create_sign_in_link(user=world.viewer.user, actor=system_actor('test'))}"
    client = Client(enforce_csrf_checks=True, headers=PAGE)

    asked = client.get(url)
    assert client.get("/admin/").status_code == 302
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', asked.text)
    assert token is not None
    assert client.post(url).status_code == 403
    spent = client.post(url, {"csrfmiddlewaretoken": token[1]})

    assert spent.headers["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200
    again = signed_in(world.admin.user).post(url)
    assert again.status_code == 401
    assert "This sign-in link was already used, has expired, was withdrawn, or never existed." in again.text


@pytest.mark.django_db
def test_sign_out_ends_session(world: World) -> None:
    client = signed_in(world.viewer.user)

    assert client.get("/admin/logout/").status_code == 405
    out = client.post("/admin/logout/")

    assert out.headers["Location"] == "/"
    assert client.get("/admin/").status_code == 302
    assert AuditEvent.objects.get(action="session.sign_out", organization=None).actor_display == "viewer@acme.example"


@pytest.mark.django_db
def test_person_without_role_sees_explanation_and_can_sign_out() -> None:
    client = signed_in(accounts.get_or_create_account("new@nowhere.example"))

    page = client.get("/admin/", follow=True)
    assert "new@nowhere.example" in page.text
    assert "not a member of an organization" in page.text
    client.post("/admin/logout/")

    assert AuditEvent.objects.filter(action="session.sign_out").count() == 1
    assert "new@nowhere.example" not in client.get("/admin/login/").text


@pytest.mark.django_db
def test_sign_in_page_redirects_signed_in_member(world: World) -> None:
    assert signed_in(world.viewer.user).get("/admin/login/").headers["Location"] == "/admin/"


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/admin/password_change/", "/admin/password_change/done/", "/admin/nowhere/"])
def test_disabled_and_unknown_admin_pages_are_not_found(world: World, path: str) -> None:
    assert signed_in(world.viewer.user).get(path).status_code == 404
