"""The console's rate limit per person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.tenancy.api import limits
from apps.tenancy.credentials import Family
from apps.tenancy.models import Organization, RateCounter, User
from tests.conftest import BEGIN
from tests.worlds import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limit_clock")]
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(autouse=True)
def _two_requests_per_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.PER_MINUTE, Family.USER, 2)


def signed_in(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user, backend="apps.tenancy.sessions.Accounts")
    return client


def exhaust_limit(client: Client) -> None:
    assert [client.get("/admin/records/", headers=BROWSER).status_code for _ in range(2)] == [200] * 2


def test_rate_limit_error_page_shows_limit_and_wait_time(world: World) -> None:
    client = signed_in(world.viewer.user)
    exhaust_limit(client)

    page = client.get("/admin/records/?a=%3Cb%3E", headers=BROWSER)

    text = " ".join(page.content.decode().split())
    wait_s = int(page["Retry-After"])
    assert (page.status_code, page["Content-Type"]) == (429, "text/html; charset=utf-8")
    assert 50 <= wait_s <= 50 + 30
    assert "more than 2 requests to the console in this minute" in text
    assert f"You can continue in {wait_s} seconds." in text
    assert 'href="/admin/records/?a=%3Cb%3E"' in text
    assert page["X-Request-ID"] in text


def test_request_over_console_limit_writes_only_rate_counter(world: World) -> None:
    client = signed_in(world.viewer.user)
    exhaust_limit(client)

    with CaptureQueriesContext(connection) as queries:
        assert client.get("/admin/records/", headers=BROWSER).status_code == 429

    # The queries read the session and the person, and count the request.
    assert [query["sql"].split()[0] for query in queries] == ["SELECT", "SELECT", "INSERT"]
    assert "tenancy_ratecounter" in queries[-1]["sql"]


@pytest.mark.parametrize(
    "path",
    ["/admin/", "/admin/records/", "/admin/search/?s=a", "/admin/nothing", "/admin/tenancy/user/", "/admin/login/"],
)
def test_requests_to_sign_in_page_and_unknown_paths_also_count_toward_console_limit(world: World, path: str) -> None:
    client = signed_in(world.viewer.user)

    responses = [client.get(path) for _ in range(3)]

    assert responses[0].status_code != 429
    assert responses[2].status_code == 429
    assert [response["X-RateLimit-Remaining"] for response in responses] == ["1", "0", "0"]
    assert responses[2].json()["type"] == "urn:byteor:problem:too_many_requests"
    assert responses[2]["Content-Type"] == "application/problem+json"


def test_live_updates_count_toward_console_limit_and_receive_problem_when_it_is_exceeded(world: World) -> None:
    world.agent()
    deployment = world.deployment(world.bundle())
    client = signed_in(world.viewer.user)

    responses = [client.get(f"/admin/releases/deployment/{deployment.pk}/live/") for _ in range(3)]

    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[2].json()["status"] == 429
    assert "Retry-After" in responses[2]


def test_form_sent_over_console_limit_changes_nothing(world: World) -> None:
    client = signed_in(world.admin.user, enforce_csrf_checks=False)
    exhaust_limit(client)
    count = Organization.objects.count()

    page = client.post("/admin/start/", {"name": "more"}, headers=BROWSER)

    assert (page.status_code, Organization.objects.count()) == (429, count)
    assert b"Nothing was changed" in page.content
    assert b"Try again" not in page.content


def test_console_and_api_have_separate_limits(world: World) -> None:
    client = signed_in(world.viewer.user)
    exhaust_limit(client)

    assert [world.viewer.api.get("/api/v1/me").status_code for _ in range(3)] == [200, 200, 429]
    keys = {str(key): count for key, count in RateCounter.objects.values_list("key", "count")}
    assert keys == {f"console:{world.viewer.user.pk}": 2, f"user:{world.viewer.user.pk}": 3}


def test_all_sessions_of_person_share_console_limit(world: World) -> None:
    exhaust_limit(signed_in(world.viewer.user))

    assert signed_in(world.viewer.user).get("/admin/records/").status_code == 429
    assert signed_in(world.operator.user).get("/admin/records/").status_code == 200


def test_console_limit_resets_every_minute(world: World, limit_clock: list[float]) -> None:
    client = signed_in(world.viewer.user)
    exhaust_limit(client)

    limit_clock[0] = BEGIN + 60

    exhaust_limit(client)


def test_public_pages_and_anonymous_requests_do_not_count_toward_console_limit(world: World) -> None:
    client = signed_in(world.viewer.user)
    for path in ("/", "/api/docs", "/healthz"):
        assert client.get(path).status_code == 200
    assert Client().get("/admin/").status_code == 302

    assert not RateCounter.objects.filter(key__startswith="console:").exists()


def test_console_limit_can_be_disabled(world: World, settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)
    client = signed_in(world.viewer.user)

    responses = [client.get("/admin/records/") for _ in range(4)]

    assert [response.status_code for response in responses] == [200] * 4
    assert "X-RateLimit-Limit" not in responses[0]
