"""Rate limits: exact with concurrent threads, shown in headers, shared by the tokens of a person or an environment."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest

from apps.tenancy.api import limits
from apps.tenancy.credentials import Family, generate
from apps.tenancy.models import Project, RateCounter
from byteor_cloud.config import Config
from byteor_cloud.errors import TooManyRequests
from tests.conftest import BEGIN
from tests.races import Race
from tests.worlds import Api, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("limit_clock")]


def limit(monkeypatch: pytest.MonkeyPatch, family: Family, count: int) -> None:
    monkeypatch.setitem(limits.PER_MINUTE, family, count)


def test_rate_limit_headers_count_down_until_minute_ends(
    world: World, limit_clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, Family.USER, 3)

    responses = [world.viewer.api.get("/api/v1/me") for _ in range(4)]

    assert [a.status_code for a in responses] == [200, 200, 200, 429]
    assert [a["X-RateLimit-Remaining"] for a in responses[:3]] == ["2", "1", "0"]
    assert {a["X-RateLimit-Limit"] for a in responses[:3]} == {"3"}
    assert {a["X-RateLimit-Reset"] for a in responses[:3]} == {str(int(BEGIN) + 60)}
    refused = responses[3]
    assert refused.json()["type"] == "urn:byteor:problem:too_many_requests"
    assert 50 <= int(refused["Retry-After"]) <= 50 + 30  # seconds until the minute ends, plus a random part
    limit_clock[0] += 50
    assert world.viewer.api.get("/api/v1/me")["X-RateLimit-Remaining"] == "2"


def test_request_above_limit_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, Family.USER, 1)
    path = f"/api/v1/orgs/{world.organization.pk}/projects"
    assert world.admin.api.post(path, {"name": "one"}).status_code == 201

    assert world.admin.api.post(path, {"name": "two"}).status_code == 429

    assert not Project.objects.filter(name="two").exists()


def test_tokens_of_same_person_share_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    further = Api(world.viewer.api.post("/api/v1/tokens", {"name": "further"}).json()["token"])
    RateCounter.objects.all().delete()
    limit(monkeypatch, Family.USER, 2)

    mine = [api.get("/api/v1/me").status_code for api in (world.viewer.api, further, world.viewer.api)]

    assert mine == [200, 200, 429]
    assert world.operator.api.get("/api/v1/me").status_code == 200


def test_refused_enrollments_are_counted_by_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, Family.ENROLLMENT, 2)
    enroll, path = Api(world.enrollment_token(max_uses=9)), world.path(rest="/agents")
    assert [enroll.post(path, {"name": f"a{i}"}).status_code for i in range(3)] == [201] * 3

    refused = [enroll.post(path, {"name": "a0"}) for _ in range(3)]
    other = Api(world.enrollment_token()).post(path, {"name": "b"})
    elsewhere = Api(world.enrollment_token(world.prod)).post(world.path(world.prod, "/agents"), {"name": "a"})

    assert [a.status_code for a in refused] == [409, 409, 429]
    assert [a["X-RateLimit-Remaining"] for a in refused] == ["1", "0", "0"]
    assert (other.status_code, elsewhere.status_code) == (429, 201)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/orgs/01990a5c-7a40-7cc0-8000-3f2b7e5d1c04", 404),
        ("/api/v1/agents/01990a5c-7a40-7cc0-8000-3f2b7e5d1c04", 403),
    ],
)
def test_refused_requests_are_counted_and_shown_in_headers(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    limit(monkeypatch, Family.USER, 2)

    responses = [world.viewer.api.get(path) for _ in range(3)]

    assert [a.status_code for a in responses] == [status, status, 429 if status == 404 else 403]
    assert [a["X-RateLimit-Remaining"] for a in responses] == ["1", "0", "0"]


def test_unknown_agent_key_is_not_counted(world: World) -> None:
    agent, _ = world.agent()
    stranger = Api(generate(Family.AGENT).text)

    response = stranger.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})

    assert (response.status_code, limits._local) == (401, {})


def test_agent_requests_are_counted_in_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, Family.AGENT, 2)
    agent, api = world.agent()
    beat = {"status": "healthy", "agent_version": "0.1.0", "active": None}
    RateCounter.objects.all().delete()

    responses = [
        api.post(f"/api/v1/agents/{agent.pk}/heartbeat", beat),
        api.get(f"/api/v1/agents/{agent.pk}"),
        api.post(f"/api/v1/agents/{agent.pk}/heartbeat", beat),
    ]

    assert [a.status_code for a in responses] == [200, 200, 429]
    assert [a["X-RateLimit-Remaining"] for a in responses[:2]] == ["1", "0"]
    assert not RateCounter.objects.exists()


@pytest.mark.parametrize("family", Family)
def test_rate_limits_match_published_values(family: Family) -> None:
    assert limits.PER_MINUTE[family] == {"usr": 1200, "org": 1200, "agt": 600, "enr": 60}[family]


def test_rate_limits_can_be_disabled(world: World, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, Family.USER, 1)
    config = {name: getattr(settings.CONFIG, name) for name in Config.__dataclass_fields__}
    settings.CONFIG = Config(**{**config, "rate_limit": False})

    responses = [world.viewer.api.get("/api/v1/me") for _ in range(3)]

    assert [a.status_code for a in responses] == [200] * 3
    assert "X-RateLimit-Limit" not in responses[0]


@pytest.mark.django_db(transaction=True)
def test_concurrent_sign_ins_are_admitted_exactly_up_to_limit(concurrently: Race, limit_clock: list[float]) -> None:
    def fifty() -> int:
        admitted = 0
        for _ in range(50):
            try:
                limits.count_sign_in("begin", "192.0.2.7")
            except TooManyRequests:
                continue
            admitted += 1
        return admitted

    assert sum(concurrently(*[fifty] * 8)) == limits.SIGN_INS_PER_ADDRESS
    assert RateCounter.objects.get(key="sign-in-begin:192.0.2.7").count == 400


def remaining(agent_id: str) -> str:
    """Count a request of an agent and return how many remain. Raises TooManyRequests above the limit."""
    usage = limits.count_agent(agent_id)
    assert usage is not None
    usage.check()
    return usage.headers["X-RateLimit-Remaining"]


def test_in_memory_request_count_is_exact_across_threads(
    limit_clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, Family.AGENT, 100)

    class Slow(dict[str, int]):
        """Counters that let another thread run between reading and writing a count."""

        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            time.sleep(0.0001)
            return found

    monkeypatch.setattr(limits, "_local", Slow())
    admitted: list[str] = []

    def fifty() -> None:
        for _ in range(50):
            with contextlib.suppress(TooManyRequests):
                admitted.append(remaining("racing"))

    threads = [threading.Thread(target=fifty) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, admitted)) == list(range(100))
    assert limits._local["agent:racing"] == 400


def test_in_memory_request_counters_are_cleared_in_new_minute(limit_clock: list[float]) -> None:
    for _ in range(3):
        remaining("a")
    limit_clock[0] = BEGIN + 60

    assert (remaining("b"), remaining("a")) == ("599", "599")
    assert limits._local == {"agent:a": 1, "agent:b": 1}
