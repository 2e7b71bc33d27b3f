"""Rate limits of agents, which do not depend on the key, and the limit on how often an agent rotates its key."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Agent, AgentKey
from apps.tenancy.api import limits
from apps.tenancy.credentials import Family, generate
from apps.tenancy.models import AuditEvent
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db
BEAT = {"status": "healthy", "agent_version": "1"}


def beat(api: Api, agent: Agent) -> Any:
    return api.post(f"/api/v1/agents/{agent.pk}/heartbeat", BEAT)


def rotate(api: Api, agent: Agent) -> Any:
    return api.post(f"/api/v1/agents/{agent.pk}/rotate-key")


def rotated(api: Api, agent: Agent, times: int) -> Api:
    """Rotate and use the key ``times`` times, and return a client with the newest key."""
    for _ in range(times):
        api = Api(rotate(api, agent).json()["token"])
        assert beat(api, agent).status_code == 200
    return api


def state() -> tuple[Any, int]:
    """Return the expiry, the revocation and ``is_pending`` of all agent keys, and the number of audit events."""
    keys = AgentKey.objects.order_by("pk").values_list("pk", "expires_at", "revoked_at", "is_pending")
    return list(keys), AuditEvent.objects.count()


def request_rotation(world: World, agent: Agent, mode: str) -> Any:
    return world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/rotate-key"), {"mode": mode})


@pytest.mark.parametrize("rest", ["/heartbeat", "/deployment", ""])
def test_new_agent_key_does_not_reset_rate_limit_of_agent(
    world: World, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    monkeypatch.setattr("apps.tenancy.api.limits.time.time", lambda: 120.0)
    monkeypatch.setitem(limits.PER_MINUTE, Family.AGENT, 3)
    agent, old = world.agent()
    assert beat(old, agent)["X-RateLimit-Remaining"] == "2"
    new = Api(rotate(old, agent).json()["token"])
    path = f"/api/v1/agents/{agent.pk}{rest}"

    responses = [new.post(path, BEAT) if rest == "/heartbeat" else new.get(path) for _ in range(2)]

    assert [response.status_code for response in responses] == [200, 429]
    assert [response["X-RateLimit-Remaining"] for response in responses] == ["0", "0"]


def test_requests_count_toward_limit_of_agent_whose_key_is_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.tenancy.api.limits.time.time", lambda: 120.0)
    agent, api = world.agent()
    other, other_api = world.agent(name="other")

    for caller in (other_api, Api(generate(Family.AGENT).text)):
        assert beat(caller, agent).status_code in {401, 403, 404}

    assert limits._local == {f"agent:{other.pk}": 1}
    assert beat(api, agent)["X-RateLimit-Remaining"] == "599"


def test_fourth_rotation_by_agent_within_one_hour_is_refused(world: World) -> None:
    agent, first = world.agent()
    api = rotated(first, agent, 3)
    before = state()

    response = rotate(api, agent)

    assert (response.status_code, response.json()["type"]) == (429, "urn:byteor:problem:too_many_requests")
    assert 3600 - 60 < int(response["Retry-After"]) <= 3600 + 30
    assert state() == before
    assert beat(api, agent).status_code == 200


def test_unused_new_keys_count_as_rotations(world: World) -> None:
    agent, api = world.agent()

    responses = [rotate(api, agent) for _ in range(4)]

    assert [response.status_code for response in responses] == [201, 201, 201, 429]
    assert beat(Api(responses[2].json()["token"]), agent).status_code == 200


def test_rotation_is_allowed_when_oldest_of_three_rotations_is_one_hour_old(world: World) -> None:
    agent, first = world.agent()
    api = rotated(first, agent, 3)
    oldest = AgentKey.objects.filter(counts_as_rotation=True).order_by("created_at")[0]
    AgentKey.objects.filter(pk=oldest.pk).update(created_at=timezone.now() - timedelta(hours=1))

    responses = [rotate(api, agent) for _ in range(2)]

    assert [response.status_code for response in responses] == [201, 429]


def test_each_agent_has_its_own_rotation_limit(world: World) -> None:
    agent, api = world.agent()
    rotated(api, agent, 3)
    other, other_api = world.agent(name="other")

    assert rotate(other_api, other).status_code == 201


def test_concurrent_rotations_by_agent_create_at_most_three_keys(concurrently: Race, world: World) -> None:
    agent, api = world.agent()

    responses = concurrently(*(lambda: rotate(api, agent) for _ in range(20)))

    assert sorted(response.status_code for response in responses) == [201] * 3 + [429] * 17
    assert AgentKey.objects.count() == 1 + 3
    usable = [Api(response.json()["token"]) for response in responses if response.status_code == 201]
    assert sorted(beat(each, agent).status_code for each in usable) == [200, 401, 401]


def test_request_for_rotation_by_agent_resets_rotation_limit(world: World) -> None:
    agent, first = world.agent()
    api = rotated(first, agent, 3)
    assert rotate(api, agent).status_code == 429

    assert request_rotation(world, agent, "by_agent").status_code == 202

    api = rotated(api, agent, 3)
    assert rotate(api, agent).status_code == 429
    # Another request of the operator resets the limit again. A repeated request is accepted.
    assert [request_rotation(world, agent, "by_agent").status_code for _ in range(2)] == [202, 202]
    assert rotate(api, agent).status_code == 201


def test_rotation_by_person_is_exempt_from_rotation_limit(world: World) -> None:
    agent, first = world.agent()
    rotated(first, agent, 3)

    responses = [request_rotation(world, agent, "now") for _ in range(5)]

    assert [response.status_code for response in responses] == [201] * 5
    assert beat(Api(responses[-1].json()["token"]), agent).status_code == 200


def test_rotations_are_unlimited_when_rate_limits_are_disabled(world: World, settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)
    agent, api = world.agent()

    assert beat(rotated(api, agent, 5), agent).status_code == 200
