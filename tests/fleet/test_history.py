"""The history of what agents ran: which heartbeats open, confirm and end intervals, and when intervals are deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.apps import apps
from django.db import transaction
from django.utils import timezone

from apps.fleet.models import Agent, Heartbeat, RunningInterval
from apps.fleet.services import agents, keys
from apps.fleet.services.history import delete_old_history
from byteor_cloud.ids import uuid7
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db

A, B, SPEC, OTHER_SPEC = (f"sha256:{digit * 64}" for digit in "abcd")
DEPLOYMENT = uuid7()
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def beat(agent: Agent, api: Api, bundle: str | None = A, *, deployment: Any = DEPLOYMENT, spec: str = SPEC) -> None:
    """Send a heartbeat of an agent that runs ``bundle``. None means that the agent runs nothing."""
    active = bundle and {"deployment_id": str(deployment), "bundle_hash": bundle, "spec_hash": spec}
    body = {"status": "healthy", "agent_version": "1", "active": active}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200


def store(agent: Agent, minute: float, bundle: str | None = A) -> None:
    """Store a heartbeat as if it had arrived ``minute`` minutes after noon.

    This does not use the API, which stores the database's time. That time does not change within a transaction.
    """
    Heartbeat.objects.filter(agent=agent).update(
        last_seen_at=NOON + timedelta(minutes=minute),
        running_bundle_hash=bundle,
        running_deployment_id=bundle and DEPLOYMENT,
        running_spec_hash=bundle and SPEC,
    )


def minutes(agent: Agent) -> list[tuple[Any, ...]]:
    """Return the agent's intervals: the bundle, and start, end and last confirmation in minutes after noon."""

    def minute(moment: datetime | None) -> float | None:
        return None if moment is None else (moment - NOON).total_seconds() / 60

    found = RunningInterval.objects.filter(agent=agent).order_by("pk")
    return [
        (row.bundle_hash, minute(row.started_at), minute(row.ended_at), minute(row.confirmed_until)) for row in found
    ]


def row_counts() -> dict[str, int]:
    """Count the rows of every model."""
    return {model._meta.db_table: model._default_manager.count() for model in apps.get_models()}


def test_first_heartbeat_with_bundle_opens_interval(world: World) -> None:
    agent, api = world.agent()
    beat(agent, api, None)
    assert minutes(agent) == []

    beat(agent, api)

    row = RunningInterval.objects.get()
    assert (row.bundle_hash, row.deployment_id, row.spec_hash) == (A, DEPLOYMENT, SPEC)
    assert (row.started_at, row.ended_at) == (Heartbeat.objects.get().last_seen_at, None)


@pytest.mark.parametrize("change", [{"bundle": B}, {"deployment": uuid7()}, {"spec": OTHER_SPEC}])
def test_changed_bundle_deployment_or_spec_opens_next_interval(world: World, change: Any) -> None:
    agent, api = world.agent()
    beat(agent, api)

    beat(agent, api, **change)

    first, second = RunningInterval.objects.order_by("pk")
    assert (first.ended_at, second.ended_at) == (second.started_at, None)


def test_repeated_heartbeats_with_same_bundle_add_no_rows(world: World) -> None:
    agents = [world.agent(name=f"agent-{number}") for number in range(2)]

    def send(times: int) -> dict[str, int]:
        for _ in range(times):
            for agent, api in agents:
                beat(agent, api)
        return row_counts()

    once = send(1)

    assert send(5) == send(10) == once
    assert once["fleet_runninginterval"] == len(agents)


def test_ended_interval_is_confirmed_until_last_heartbeat_with_its_bundle(world: World) -> None:
    agent, _ = world.agent()
    for minute, bundle in ((0, A), (1, A), (9, A), (30, B), (31, None), (40, None), (50, A)):
        store(agent, minute, bundle)

    assert minutes(agent) == [(A, 0, 30, 9), (B, 30, 31, 30), (A, 50, None, None)]


def test_intervals_do_not_overlap_when_heartbeats_are_stored_out_of_order(world: World) -> None:
    agent, _ = world.agent()
    for minute, bundle in ((0, A), (10, B), (9, A), (8, None), (7, B)):
        store(agent, minute, bundle)

    assert minutes(agent) == [(A, 0, 10, 0), (B, 10, 10, 10), (A, 10, 10, 10), (B, 10, None, None)]


def test_flapping_agent_adds_at_most_1000_intervals_per_day(world: World) -> None:
    agent, _ = world.agent()
    for change in range(1010):
        store(agent, change * 0.5, A if change % 2 else B)

    found = minutes(agent)
    assert len(found) == 1000
    assert found[-1] == (A, 504.5, None, None)  # the open interval is correct even beyond the limit
    assert found[-2][:3] == (B, 499, 499.5)  # a gap precedes the open interval
    store(agent, 505, None)
    assert minutes(agent)[-1][:3] == (A, 504.5, 505)
    store(agent, 506, B)
    assert (len(minutes(agent)), minutes(agent)[-1][:3]) == (1000, (B, 506, None))
    store(agent, 24 * 60 + 600, A)
    assert (len(minutes(agent)), minutes(agent)[-1][:3]) == (1001, (A, 24 * 60 + 600, None))


def test_decommissioned_agent_keeps_its_history(world: World) -> None:
    agent, _ = world.agent()
    store(agent, 0)

    agents.decommission(agent, actor=world.admin.actor)

    assert minutes(agent) == [(A, 0, None, None)]


def test_intervals_are_deleted_one_year_after_their_end(world: World) -> None:
    agent, _ = world.agent()
    for minute, bundle in ((0, A), (10, B), (20, A)):
        store(agent, minute, bundle)
    year = timedelta(days=365)

    assert delete_old_history(NOON + year + timedelta(minutes=10)) == 0
    assert delete_old_history(NOON + year + timedelta(minutes=11)) == 1
    assert delete_old_history(NOON + 9 * year) == 1
    assert minutes(agent) == [(A, 20, None, None)]  # the open interval remains


def test_refused_heartbeat_leaves_interval_open(world: World) -> None:
    agent, api = world.agent()
    beat(agent, api)
    keys.rotate_key(agent, actor=world.admin.actor)
    body = {"status": "healthy", "agent_version": "1", "active": None}

    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 401

    assert RunningInterval.objects.get().ended_at is None


@pytest.mark.django_db(transaction=True)
def test_concurrent_heartbeats_leave_at_most_one_open_interval(world: World, concurrently: Race) -> None:
    agent, api = world.agent()

    responses = concurrently(
        *(lambda bundle=bundle: beat(agent, api, bundle) for bundle in (A, B, A, B, None, A, B, A))
    )

    assert responses == [None] * 8
    found = list(RunningInterval.objects.filter(agent=agent).order_by("started_at", "pk"))
    running = Heartbeat.objects.get(agent=agent).running_bundle_hash
    assert [row.bundle_hash for row in found if row.ended_at is None] == ([running] if running else [])
    for earlier, later in pairwise(found):
        assert earlier.ended_at is not None
        assert earlier.started_at <= earlier.ended_at <= later.started_at


@pytest.mark.django_db(transaction=True)
def test_waiting_heartbeat_sees_interval_opened_by_concurrent_heartbeat(world: World, concurrently: Race) -> None:
    """Two transactions store heartbeats of the same two agents, so one transaction must wait for the other."""
    agents = sorted((world.agent(name=f"agent-{number}")[0] for number in range(2)), key=lambda agent: agent.pk)

    def store_both(bundle: str) -> None:
        with transaction.atomic():
            for agent in agents:
                Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now(), running_bundle_hash=bundle)

    assert concurrently(lambda: store_both(A), lambda: store_both(B)) == [None, None]
    for agent in agents:
        assert sorted(row.bundle_hash for row in RunningInterval.objects.filter(agent=agent)) == [A, B]
        assert RunningInterval.objects.filter(agent=agent, ended_at=None).count() == 1


def test_heartbeat_in_rolled_back_transaction_leaves_no_interval(world: World) -> None:
    agent, _ = world.agent()
    with transaction.atomic():
        store(agent, 0)
        transaction.set_rollback(True)

    assert minutes(agent) == []
