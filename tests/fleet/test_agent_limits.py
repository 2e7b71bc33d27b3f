"""Rate limits belong to the agent, not to its key, and an agent rotates its key at most three times in an hour."""

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
    """Rotate the key, use the new one, and return it."""
    for _ in range(times):
        api = Api(rotate(api, agent).json()["token"])
        assert beat(api, agent).status_code == 200
    return api


def state() -> tuple[Any, int]:
    """Return all keys, without the time of their last use, and the number of audit events."""
    keys = AgentKey.objects.order_by("pk").values_list("pk", "expires_at", "revoked_at", "is_pending")
    return list(keys), AuditEvent.objects.count()


def request_rotation(world: World, agent: Agent, mode: str) -> Any:
    return world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/rotate-key"), {"mode": mode})


@pytest.mark.parametrize("rest", ["/heartbeat", "/deployment", ""])
def test_new_key_gives_no_new_requests(world: World, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    monkeypatch.setattr("apps.tenancy.api.limits.time.time", lambda: 120.0)
    monkeypatch.setitem(limits.PER_MINUTE, Family.AGENT, 3)
    agent, old = world.agent()
    assert beat(old, agent)["X-RateLimit-Remaining"] == "2"
    new = Api(rotate(old, agent).json()["token"])
    path = f"/api/v1/agents/{agent.pk}{rest}"

    answers = [new.post(path, BEAT) if rest == "/heartbeat" else new.get(path) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert [answer["X-RateLimit-Remaining"] for answer in answers] == ["0", "0"]


def test_another_agents_key_uses_its_own_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.tenancy.api.limits.time.time", lambda: 120.0)
    agent, api = world.agent()
    other, stranger = world.agent(name="other")

    for caller in (stranger, Api(generate(Family.AGENT).text)):
        assert beat(caller, agent).status_code in {401, 403, 404}

    assert limits._local == {f"agent:{other.pk}": 1}
    assert beat(api, agent)["X-RateLimit-Remaining"] == "599"


def test_fourth_rotation_in_an_hour_changes_nothing(world: World) -> None:
    agent, first = world.agent()
    api = rotated(first, agent, 3)
    before = state()

    answer = rotate(api, agent)

    assert (answer.status_code, answer.json()["type"]) == (429, "urn:byteor:problem:too_many_requests")
    assert 3600 - 60 < int(answer["Retry-After"]) <= 3600 + 30
    assert state() == before
    assert beat(api, agent).status_code == 200


def test_unused_new_keys_count(world: World) -> None:
    agent, api = world.agent()

    answers = [rotate(api, agent) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert beat(Api(answers[2].json()["token"]), agent).status_code == 200


def test_rotation_is_possible_again_once_the_first_of_three_is_an_hour_old(world: World) -> None:
    agent, first = world.agent()
    api = rotated(first, agent, 3)
    oldest = AgentKey.objects.filter(counts_as_rotation=True).order_by("created_at")[0]
    AgentKey.objects.filter(pk=oldest.pk).update(created_at=timezone.now() - timedelta(hours=1))

    answers = [rotate(api, agent) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 429]


def test_agents_rotate_independently(world: World) -> None:
    agent, api = world.agent()
    rotated(api, agent, 3)
    other, other_api = world.agent(name="other")

    assert rotate(other_api, other).status_code == 201


def test_concurrent_rotations_give_three_keys(at_once: Race, world: World) -> None:
    agent, api = world.agent()

    answers = at_once(*(lambda: rotate(api, agent) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 17
    assert AgentKey.objects.count() == 1 + 3
    usable = [Api(answer.json()["token"]) for answer in answers if answer.status_code == 201]
    assert sorted(beat(each, agent).status_code for each in usable) == [200, 401, 401]


def test_person_may_request_a_rotation_of_an_agent_that_has_used_up_its_own(world: World) -> None:
    agent, first = world.agent()
    api = rotated(first, agent, 3)
    assert rotate(api, agent).status_code == 429

    assert request_rotation(world, agent, "by_agent").status_code == 202

    api = rotated(api, agent, 3)
    assert rotate(api, agent).status_code == 429
    # A repeated request grants them again, although the agent was told already.
    assert [request_rotation(world, agent, "by_agent").status_code for _ in range(2)] == [202, 202]
    assert rotate(api, agent).status_code == 201


def test_rotation_by_a_person_is_not_limited(world: World) -> None:
    agent, first = world.agent()
    rotated(first, agent, 3)

    answers = [request_rotation(world, agent, "now") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [201] * 5
    assert beat(Api(answers[-1].json()["token"]), agent).status_code == 200


def test_rotations_are_not_limited_without_rate_limits(world: World, settings: Any) -> None:
    settings.CONFIG = replace(settings.CONFIG, rate_limit=False)
    agent, api = world.agent()

    assert beat(rotated(api, agent, 5), agent).status_code == 200
