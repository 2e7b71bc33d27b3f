"""The rate limit for callers without a valid credential, its costs, and the caller and address of a connection."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

from apps.fleet.api import anonymous
from apps.fleet.models import AgentKey
from apps.tenancy.credentials import Family, generate
from apps.tenancy.models import User, UserToken
from byteor_cloud.api import refusals
from tests.patience import wait_until
from tests.races import Race
from tests.worlds import World

pytestmark = pytest.mark.django_db
BURST = 3
ELSEWHERE = "192.0.2.9"


class Clock:
    """A clock that only tests move forward, and that records sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Allow each address ``BURST`` requests, and one more every ten seconds of a fake clock."""
    clock = Clock()
    for module in (refusals, anonymous):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(anonymous, "PER_ADDRESS_BURST", BURST)
    monkeypatch.setattr(anonymous, "PER_ADDRESS_PER_S", 0.1)
    monkeypatch.setattr(anonymous, "callers", anonymous.AnonymousCallers())
    monkeypatch.setattr(anonymous, "_pace", refusals.Pace())
    monkeypatch.setattr(anonymous, "_refused", refusals.Tally("anonymous_requests_refused"))
    return clock


def get(path: str, token: str | None = None, *, address: str = "127.0.0.1", cookie: str = "", **headers: str) -> Any:
    """Send a request with a new client."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if cookie:
        headers["Cookie"] = f"sessionid={cookie}"
    return Client(raise_request_exception=False).get(path, headers=headers, REMOTE_ADDR=address)


def statuses(times: int, path: str = "/nothing", token: str | None = None, **options: str) -> list[int]:
    return [get(path, token, **options).status_code for _ in range(times)]


def use_up(**options: str) -> None:
    assert statuses(BURST + 1, **options) == [404] * BURST + [429]


def session_of(user: User) -> str:
    client = Client()
    client.force_login(user, backend="apps.tenancy.sessions.Accounts")
    return client.cookies["sessionid"].value


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/metrics",
        "/",
        "/api/schema",
        "/api/docs",
        "/api/v1/me",
        "/admin/login/",
        "/auth/nothing",
        "/static/x",
    ],
)
def test_requests_without_credential_to_paths_other_than_probes_are_limited(path: str) -> None:
    responses = [get(path) for _ in range(BURST + 2)]

    assert [response.status_code == 429 for response in responses] == [False] * BURST + [True] * 2
    assert responses[-1].json()["type"] == "urn:byteor:problem:too_many_requests"
    assert 10 <= int(responses[-1]["Retry-After"]) <= 10 + 30
    assert responses[-1]["X-Request-ID"] == responses[-1].json()["request_id"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_not_limited(path: str) -> None:
    use_up()

    assert statuses(BURST + 2, path) == [200] * (BURST + 2)


def test_browser_over_limit_gets_problem_from_api_and_html_page_from_other_paths() -> None:
    use_up()

    page = get("/metrics", Accept="text/html")
    from_api = get("/api/v1/me", Accept="text/html")

    assert (page.status_code, page["Content-Type"]) == (429, "text/html; charset=utf-8")
    assert b"Too many requests" in page.content
    assert "default-src 'self'" in page["Content-Security-Policy"]
    assert from_api["Content-Type"] == "application/problem+json"


def test_anonymous_request_allowance_recovers_over_time(clock: Clock) -> None:
    use_up()

    clock.now += 10

    assert statuses(2) == [404, 429]
    clock.now += 10_000
    assert statuses(BURST + 1) == [404] * BURST + [429]


@pytest.mark.parametrize(
    ("token", "cookie"),
    [
        (None, ""),
        ("nonsense", ""),
        ("", "x" * 32),  # a header without a credential, and a cookie, which the API ignores
        (None, "short"),
    ],
)
def test_refused_request_without_well_formed_credential_makes_no_query(token: str | None, cookie: str) -> None:
    use_up()

    with CaptureQueriesContext(connection) as queries:
        response = get("/api/v1/me", token, cookie=cookie)

    assert (response.status_code, len(queries)) == (429, 0)


@pytest.mark.parametrize("kind", [*Family, "malformed", "session"])
def test_requests_with_invalid_credentials_are_limited_by_address(kind: str) -> None:
    bad = {"cookie": "f" * 32} if kind == "session" else {"token": "bor" if kind == "malformed" else ""}
    if kind in set(Family):
        bad["token"] = generate(Family(kind)).text
    path = "/admin/" if kind == "session" else "/api/v1/me"
    status = 302 if kind == "session" else 401

    assert statuses(BURST + 2, path, **bad) == [status] * BURST + [429] * 2
    assert statuses(1, path, address=ELSEWHERE, **bad) == [status]


def test_repeated_invalid_credential_over_limit_is_looked_up_once() -> None:
    use_up()
    invalid = generate(Family.USER).text
    with CaptureQueriesContext(connection) as queries:
        assert statuses(20, "/api/v1/me", invalid) == [429] * 20

    assert len(queries) == 1


def test_each_lookup_of_unknown_credential_over_limit_is_followed_by_pause(clock: Clock) -> None:
    use_up()
    clock.slept.clear()

    assert {get("/api/v1/me", generate(Family.USER).text).status_code for _ in range(5)} == {429}

    assert clock.slept == [1 / anonymous.LOOK_UPS_PER_S] * 5


def test_concurrent_unknown_credentials_over_limit_share_lookups(
    concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_up()
    tokens = [generate(family).text for family in Family for _ in range(5)]
    batches: list[int] = []
    valid_digests = anonymous._valid_digests

    def look_up(batch: Any) -> set[str]:
        batches.append(len(batch))
        wait_until(lambda: sum(batches) + len(anonymous.callers._look_ups._queue) == len(tokens))
        return valid_digests(batch)

    monkeypatch.setattr(anonymous, "_valid_digests", look_up)

    responses = concurrently(*(lambda token=token: get("/api/v1/me", token).status_code for token in tokens))

    assert responses == [429] * len(tokens)
    assert sum(batches) == len(tokens)
    assert len(batches) <= 2


def test_valid_credentials_are_accepted_when_address_is_over_limit(world: World) -> None:
    for token in (None, generate(Family.USER).text):
        assert 429 in statuses(BURST + 2, "/api/v1/me", token)

    known = world.viewer.api.token
    key = world.admin.api.post(
        f"/api/v1/orgs/{world.organization.pk}/api-keys", {"name": "script", "role": "viewer"}
    ).json()["token"]

    assert statuses(BURST * 3, "/api/v1/me", known) == [200] * (BURST * 3)
    assert statuses(BURST * 3, "/api/v1/me", key) == [200] * (BURST * 3)


def test_agents_and_enrollments_are_accepted_when_address_is_over_limit(world: World) -> None:
    agent, api = world.agent()
    token = world.enrollment_token(max_uses=9)
    use_up()

    assert statuses(BURST * 2, f"/api/v1/agents/{agent.pk}/signing-key", api.token) == [200] * (BURST * 2)
    for number in range(BURST * 2):
        response = Client().post(
            world.path(rest="/agents"),
            {"name": f"a{number}"},
            "application/json",
            headers={"Authorization": f"Bearer {token}"},
        )
        assert response.status_code == 201


def test_console_session_is_accepted_when_address_is_over_limit(world: World) -> None:
    cookie = session_of(world.viewer.user)
    use_up()

    assert statuses(BURST * 2, "/admin/records/", cookie=cookie) == [200] * (BURST * 2)
    assert statuses(BURST, "/static/byteor/page.css", cookie=cookie) == [404] * BURST  # no static files in tests


def test_first_static_file_request_of_session_is_accepted_when_address_is_over_limit(world: World) -> None:
    cookie = session_of(world.viewer.user)
    use_up()

    assert statuses(1, "/static/byteor/page.css", cookie=cookie) == [404]


def test_api_request_without_token_does_not_invalidate_session(world: World) -> None:
    cookie = session_of(world.viewer.user)
    assert statuses(1, "/admin/records/", cookie=cookie) == [200]

    assert statuses(BURST + 1, "/api/v1/me", cookie=cookie) == [401] * BURST + [429]

    assert statuses(1, "/admin/records/", cookie=cookie) == [200]


def test_requests_with_valid_credential_do_not_use_up_anonymous_allowance(world: World) -> None:
    token, cookie = world.viewer.api.token, session_of(world.viewer.user)

    assert statuses(BURST * 2, "/api/v1/me", token) == [200] * (BURST * 2)
    assert statuses(BURST * 2, "/admin/records/", cookie=cookie) == [200] * (BURST * 2)

    use_up()


def test_caller_with_valid_credential_has_separate_limit_for_unknown_paths(world: World) -> None:
    token = world.viewer.api.token
    assert statuses(1, "/api/v1/me", token) == [200]

    assert statuses(BURST + 1, "/nothing", token) == [404] * BURST + [429]

    assert statuses(1, "/nothing") == [404]
    assert statuses(1, "/api/v1/me", world.operator.api.token) == [200]


def test_requests_with_deleted_credential_are_limited_by_address(world: World) -> None:
    token = world.viewer.api.token
    assert statuses(1, "/api/v1/me", token) == [200]
    UserToken.objects.filter(user=world.viewer.user).delete()

    assert statuses(BURST + 2, "/api/v1/me", token) == [401] * BURST + [429] * 2


def test_requests_with_spent_enrollment_token_are_limited_by_address(world: World) -> None:
    token = world.enrollment_token(max_uses=1)
    headers = {"Authorization": f"Bearer {token}"}
    path = world.path(rest="/agents")
    assert Client().post(path, {"name": "a"}, "application/json", headers=headers).status_code == 201

    responses = [Client().post(path, {"name": "b"}, "application/json", headers=headers) for _ in range(BURST + 3)]

    assert responses[-1].status_code == 429
    assert AgentKey.objects.count() == 1


def test_session_of_unfinished_sign_in_is_not_valid_credential(db: None) -> None:
    client = Client()
    session = client.session
    session["state"] = "x"
    session.save()
    use_up()

    assert statuses(1, cookie=str(session.session_key)) == [429]


def test_all_addresses_share_total_limit_of_anonymous_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anonymous, "IN_TOTAL_BURST", 5)
    monkeypatch.setattr(anonymous, "IN_TOTAL_PER_S", 0.1)
    monkeypatch.setattr(anonymous, "callers", anonymous.AnonymousCallers())

    responses = [statuses(1, address=f"192.0.2.{number}") for number in range(8)]

    assert responses == [[404]] * 5 + [[429]] * 3


def test_ipv6_addresses_of_same_64_bit_network_share_limit() -> None:
    use_up(address="2001:db8::1")

    assert statuses(1, address="2001:db8::ffff:1") == [429]
    assert statuses(1, address="2001:db8:0:1::1") == [404]


@pytest.mark.parametrize(("proxies", "status"), [(0, 429), (1, 404)])
def test_forwarded_address_is_used_only_behind_trusted_proxy(settings: Any, proxies: int, status: int) -> None:
    use_up()
    settings.CONFIG = replace(settings.CONFIG, trusted_proxies=proxies)

    response = get("/nothing", **{"X-Forwarded-For": ELSEWHERE})

    assert response.status_code == status


def test_number_of_tracked_addresses_is_bounded() -> None:
    allowance = refusals.Allowance(per_s=1, burst=1, max_keys=100)

    for number in range(1000):
        allowance.take(str(number))

    assert len(allowance._due) == 100
    assert allowance.take("999") > 0
    assert allowance.take("0") == 0


def test_limits_of_anonymous_requests_can_be_disabled(settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)

    assert statuses(BURST * 2) == [404] * (BURST * 2)


def denied() -> float:
    return REGISTRY.get_sample_value("byteor_denied_requests_total", {"status": "429"}) or 0


def test_refused_anonymous_requests_are_counted_and_logged_in_summary_lines(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_up(address=ELSEWHERE)
    before = denied()
    clock.now += 60
    monkeypatch.setattr(refusals, "BURST", 2)

    with structlog.testing.capture_logs() as lines:
        assert statuses(10, "/nothing", address=ELSEWHERE).count(429) == 10 - BURST

    refused = [line for line in lines if line.get("status") == 429]
    assert (refused, denied()) == ([], before + 10 - BURST)
    assert [line["event"] for line in lines if line["event"] != "request"] == [
        "anonymous_requests_refused", "refusals_delayed",
    ]  # fmt: skip
    assert len(clock.slept) == 10 - BURST - 2


def test_database_outage_during_credential_lookup_returns_503(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    def down(batch: Any) -> set[str]:
        raise OperationalError("down")

    use_up()
    monkeypatch.setattr(anonymous, "_valid_digests", down)

    response = get("/api/v1/me", generate(Family.USER).text)

    assert (response.status_code, response.json()["type"]) == (503, "urn:byteor:problem:unavailable")
    assert "Retry-After" in response


# -- connections ----------------------------------------------------------------------------------------------------


def send_and_get_connection(path: str, token: str | None = None, **options: Any) -> SimpleNamespace:
    """Send a request. Return its connection, on which the application notes the client's address and the caller."""
    made = SimpleNamespace(address="10.0.0.1", caller=None)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    options |= {"gunicorn.socket": made, "REMOTE_ADDR": "10.0.0.1", "wsgi.url_scheme": "http"}
    Client(raise_request_exception=False).get(path, headers=headers, **options)
    return made


def test_connection_is_attributed_to_address_forwarded_by_trusted_proxy(settings: Any) -> None:
    assert send_and_get_connection("/nothing", HTTP_X_FORWARDED_FOR="203.0.113.7").address == "10.0.0.1"

    settings.CONFIG = replace(settings.CONFIG, trusted_proxies=1)

    assert send_and_get_connection("/nothing", HTTP_X_FORWARDED_FOR="203.0.113.7").address == "203.0.113.7"


def test_connection_is_attributed_to_caller_after_credential_is_verified(world: World) -> None:
    agent, api = world.agent()
    operator = world.operator

    assert send_and_get_connection("/api/v1/me", operator.api.token).caller == f"user:{operator.user.pk}"
    assert send_and_get_connection(f"/api/v1/agents/{agent.pk}/deployment?wait_s=0", api.token).caller is not None
    for token in (None, "nonsense", generate(Family.USER).text, generate(Family.AGENT).text):
        assert send_and_get_connection("/api/v1/me", token).caller is None
