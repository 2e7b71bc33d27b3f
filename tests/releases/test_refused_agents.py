"""The list of agents whose keys are refused: what is stored, its limits, the command and the console's table."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import DatabaseError
from django.utils import timezone

from apps.fleet import tasks
from apps.fleet.models import Agent, AgentKey, RefusedAgent
from apps.fleet.services import agents, refused_agents
from apps.fleet.services.refused_agents import store_refused
from apps.operations.services import restores
from apps.releases.api.agent_path import refused
from apps.tenancy.credentials import Family, generate
from byteor_cloud.api import refusals
from byteor_cloud.ids import uuid7
from tests.browser.filled import row_page, signed_in, superuser, table
from tests.operations.test_settled_restore import BACKUP
from tests.races import Race, concurrently
from tests.worlds import Api, World

__all__ = ["concurrently"]
pytestmark = pytest.mark.django_db
BEAT = {"status": "healthy", "agent_version": "1"}


def poll(agent_id: UUID, api: Api | None = None) -> int:
    """Poll as the agent, by default with a key that the database does not know. Return the status."""
    api = api or Api(generate(Family.AGENT).text)
    return int(api.get(f"/api/v1/agents/{agent_id}/deployment").status_code)


def listed() -> dict[UUID, RefusedAgent]:
    return {row.pk: row for row in RefusedAgent.objects.all()}


def run(*options: str) -> str:
    out = StringIO()
    call_command("refused_agents", *options, stdout=out)
    return out.getvalue().strip()


def seen(*agent_ids: UUID, days: float) -> None:
    moment = timezone.now() - timedelta(days=days)
    RefusedAgent.objects.filter(pk__in=agent_ids).update(first_at=moment, last_at=moment)


def test_command_lists_unknown_agents_decommissioned_agents_and_agents_with_revoked_key(world: World) -> None:
    assert run() == "The list of refused agents is empty."
    assert run("--json") == "[]"
    (rotated, with_old_key), (gone, ended), (fine, working) = (world.agent(name=name) for name in ("a", "b", "c"))
    assert with_old_key.post(f"/api/v1/agents/{rotated.pk}/heartbeat", BEAT).status_code == 200
    AgentKey.objects.filter(agent=rotated).update(revoked_at=timezone.now())
    agents.decommission(gone, actor=world.admin.actor)
    later = uuid7()

    assert [poll(later), poll(rotated.pk, with_old_key), poll(gone.pk, ended), poll(fine.pk, working)] == [
        401, 401, 401, 200,
    ]  # fmt: skip

    seen(gone.pk, days=1)
    seen(rotated.pk, days=2)
    found = json.loads(run("--json"))
    assert [(each["agent_id"], each["reason"], each["name"]) for each in found] == [
        (str(later), "unknown_agent", None),
        (str(gone.pk), "decommissioned", "b"),
        (str(rotated.pk), "unusable_key", "a"),
    ]
    place = [world.organization.name, world.project.name, "dev"]
    assert [found[2][name] for name in ("organization", "project", "environment")] == place
    assert found[2]["first_at"] == found[2]["last_at"] < found[2]["heartbeat_at"]
    lines = run().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{later}  unknown agent   first ")
    assert lines[2].startswith(f"{rotated.pk}  unusable key    first ")
    assert lines[2].endswith(f"  a in {' / '.join(place)}")


def test_agents_are_not_listed_without_well_formed_agent_key(world: World) -> None:
    unchecked = generate(Family.AGENT).text
    wrong = unchecked[:-1] + ("0" if unchecked[-1] != "0" else "1")

    for text in (wrong, "bor_agt_x", generate(Family.USER).text, None):
        assert poll(uuid7(), Api(text)) == 401

    assert listed() == {}


def test_process_stores_refused_agent_at_most_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))
    agent_id = uuid7()
    poll(agent_id)
    first = listed()[agent_id]

    now[0] += refused.PRECISION_S - 1
    poll(agent_id)
    assert listed()[agent_id].last_at == first.last_at
    now[0] += 2
    poll(agent_id)

    again = listed()[agent_id]
    assert (again.first_at, again.last_at > first.last_at) == (first.first_at, True)


def test_unknown_agents_above_limit_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_agents, "MOST_ROWS", 2)
    old, *more = (uuid7() for _ in range(3))
    store_refused([old])
    seen(old, days=1)

    store_refused([*more, old])

    assert set(listed()) == {old, more[0]}
    assert listed()[old].last_at > timezone.now() - timedelta(hours=1)


def test_known_agents_replace_unknown_agents_in_full_list(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_agents, "MOST_ROWS", 3)
    known = [world.agent(name=name)[0].pk for name in "abcd"]
    oldest, old, *more = (uuid7() for _ in range(4))
    store_refused([oldest, old])
    seen(oldest, days=1)

    store_refused([*more, *known[:2]])  # one known agent fits, and the other replaces an unknown one

    assert set(listed()) == {old, *known[:2]}
    store_refused([*more, *known])
    assert set(listed()) == set(known[:3])


def test_concurrently_stored_refused_agents_do_not_exceed_limit(
    concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_agents, "MOST_ROWS", 30)
    ids = [uuid7() for _ in range(40)]

    found = concurrently(*(lambda part=part: store_refused(part) for part in (ids, ids[::-1], ids[10:], ids[:20])))

    assert found == [None] * 4
    assert len(listed()) == 30


def test_refused_agents_are_stored_in_background_at_limited_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[tuple[float, Any]] = []

    def timer(seconds: float, function: Any) -> Any:
        timers.append((seconds, function))
        return SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(refused, "is_module_patched", lambda _: True)
    monkeypatch.setattr("threading.Timer", timer)
    process = refused.RefusedAgents()
    ids = [uuid7() for _ in range(150)]

    for agent_id in ids:
        process.note(agent_id)

    assert listed() == {}
    [(seconds, store)] = timers
    store()
    assert len(listed()) == refusals.PER_S * seconds
    for agent_id in ids:
        process.note(agent_id)  # those that were left out are noted now
    timers[1][1]()
    assert set(listed()) == set(ids)


def test_database_error_does_not_change_response_and_agent_is_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    agent_id = uuid7()

    def fail(_: Any) -> None:
        raise DatabaseError("the database is gone")

    with monkeypatch.context() as broken:
        broken.setattr(refused, "store_refused", fail)
        assert poll(agent_id) == 401
    assert listed() == {}

    assert poll(agent_id) == 401
    assert set(listed()) == {agent_id}


def test_refused_agents_are_deleted_after_30_days_and_after_restore(world: World) -> None:
    old, recent = uuid7(), uuid7()
    store_refused([old, recent])
    seen(old, days=30.1)
    seen(recent, days=29.9)

    tasks.delete_old_credentials()
    assert set(listed()) == {recent}

    restores.settle(BACKUP)
    assert listed() == {}


def test_table_in_console_links_to_known_agents(world: World) -> None:
    (agent, _), unknown = world.agent(), uuid7()
    store_refused([agent.pk, unknown])
    client = signed_in(superuser())

    page = client.get(table(RefusedAgent)).text

    assert str(unknown) in page
    assert ">Unknown<" in page
    assert row_page(Agent.objects.get(pk=agent.pk)) in page
    assert row_page(agent) in client.get(row_page(RefusedAgent.objects.get(pk=agent.pk))).text
    assert signed_in(world.admin.user).get(table(RefusedAgent)).status_code == 403
