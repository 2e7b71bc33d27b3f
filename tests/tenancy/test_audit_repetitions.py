"""Actions that an organization key repeats within a minute: the first is recorded in full, the others as one event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.tenancy import tasks
from apps.tenancy.actors import Actor
from apps.tenancy.models import AuditEvent, DenialCount, RepeatedEvent, WebhookDelivery
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import audit, ledger, tokens
from apps.tenancy.services.ledger import Verification
from tests.races import Race
from tests.worlds import PLAN, Api, World

pytestmark = pytest.mark.django_db
TIMES = 4


class Machine:
    """An organization key and the events that it causes."""

    def __init__(self, world: World, name: str = "ci") -> None:
        key, text = tokens.create_organization_key(
            organization=world.organization, name=name, role=Role.ORG_ADMIN, granter=GRANTS[Role.ORG_ADMIN],
            actor=world.admin.actor,
        )  # fmt: skip
        self.api = Api(text)
        self.actor = Actor("organization_key", str(key.pk), "ci", request_id="r", ip="192.0.2.1")

    def events(self, **filters: Any) -> list[AuditEvent]:
        """Return the events of the key, oldest first."""
        return list(AuditEvent.objects.filter(actor_id=self.actor.id, **filters).order_by("id"))

    def record(self, action: str, changes: dict[str, Any], *, world: World, resource: str = "a") -> AuditEvent:
        return audit.record(action, actor=self.actor, scope=world.dev, resource=("agent", resource), changes=changes)


@pytest.fixture
def machine(world: World) -> Machine:
    return Machine(world)


def minute_is_over() -> str:
    """Move all repetitions to the previous minute and return that minute.

    Before the call, all repetitions have the same minute, because ``now()`` is the start of the test's transaction.
    """
    RepeatedEvent.objects.update(minute=F("minute") - timedelta(minutes=1))
    minute: datetime = RepeatedEvent.objects.values_list("minute", flat=True).distinct().get()
    return minute.isoformat()


def flips(world: World, api: Api) -> dict[str, Callable[[int], Any]]:
    """Return requests by name. An organization key can repeat each, and each repetition must be recorded or counted."""
    org = f"/api/v1/orgs/{world.organization.pk}"
    agent, _ = world.agent(zone="x")
    agent_path, draft = world.path(rest=f"/agents/{agent.pk}"), world.version().draft_id
    many = world.path(rest="/agents/labels")
    hook = api.post(f"{org}/webhooks", {"url": "https://hooks.example.com/", "events": ["*"]}).json()["id"]
    return {
        "labels": lambda n: api.patch(agent_path, {"labels": {"n": str(n), "place": "x"}}),
        "name": lambda n: api.patch(agent_path, {"name": f"agent-{n}"}),
        "labels of many": lambda n: api.post(many, {"selector": {"place": "x"}, "set": {"m": str(n)}}),
        "drain": lambda n: api.post(f"{agent_path}/{'un' * (n % 2)}drain"),
        "rotate a key": lambda n: api.post(f"{agent_path}/rotate-key", {"mode": "now"}),
        "draft": lambda n: api.put(world.path(rest=f"/drafts/{draft}"), {"plan": {**PLAN, "description": str(n)}}),
        "draft's name": lambda n: api.put(world.path(rest=f"/drafts/{draft}"), {"name": f"draft {n}"}),
        "environment": lambda n: api.put(world.path(), {"settings": {"heartbeat_interval_s": 10 + n}}),
        "project": lambda n: api.put(f"{org}/projects/{world.project.pk}", {"name": f"project {n}"}),
        "organization": lambda n: api.put(org, {"settings": {"token_max_days": 30 + n}}),
        "role": lambda n: api.put(f"{org}/members/{world.viewer.user.pk}", {"role": ("operator", "viewer")[n % 2]}),
        "webhook": lambda n: api.put(f"{org}/webhooks/{hook}", {"description": str(n)}),
        "webhook's secret": lambda n: api.post(f"{org}/webhooks/{hook}/rotate-secret"),
        "webhook's test": lambda n: api.post(f"{org}/webhooks/{hook}/test"),
    }  # fmt: skip


def test_changes_that_organization_key_repeats_are_recorded_as_two_events(world: World, machine: Machine) -> None:
    acts = flips(world, machine.api)
    before = {event.pk for event in machine.events()}

    for name, act in acts.items():
        for number in range(TIMES):
            assert act(number).status_code < 300, (name, number)

    def new() -> list[AuditEvent]:
        return [event for event in machine.events() if event.pk not in before]

    in_full = new()
    # Each rotation creates another key, but the agent is the same, so the rotations count as repetitions.
    assert set(Counter((e.action, e.resource_id) for e in in_full).values()) == {1}
    assert Counter(e.action for e in in_full)["agent_key.create"] == 1
    assert not any("count" in event.changes for event in in_full)

    tasks.close_minute()  # records nothing, because the minute is not over
    assert new() == in_full
    minute_is_over()
    tasks.close_minute()
    tasks.close_minute()

    counts = {event.action: event.changes["count"] for event in new()[len(in_full) :]}
    flipped_twice = {"agent.update", "draft.update"}  # actions that two of the requests cause
    assert counts == {
        **{event.action: TIMES - 1 for event in in_full},
        **dict.fromkeys(("agent.drain", "agent.undrain"), TIMES // 2 - 1),
        **dict.fromkeys(flipped_twice, 2 * TIMES - 1),
    }
    assert not RepeatedEvent.objects.exists()
    ledger.seal_all()
    assert list(Verification(world.organization.pk).faults()) == []


def test_event_of_counted_repetitions_has_last_values(world: World, machine: Machine) -> None:
    first = machine.record("agent.update", {"name": ["a", "b"]}, world=world)
    repeated: list[dict[str, Any]] = [
        {"name": ["b", "c"]},
        {"labels": [{}, {"x": "1"}], "name": ["c", "d"]},
        {"labels": [{"x": "1"}, {}]},
    ]
    for changes in repeated:
        assert machine.record("agent.update", changes, world=world) == first
    minute = minute_is_over()

    audit.close_repetitions()

    full, counted = machine.events(action="agent.update")
    assert (full, full.changes) == (first, {"name": ["a", "b"]})
    last = {"name": ["c", "d"], "labels": [{"x": "1"}, {}]}
    assert counted.changes == {"count": 3, "minute": minute, "last": last}
    same = (
        "organization_id", "project_id", "environment_id", "actor_kind", "actor_display", "outcome", "resource_kind",
        "resource_id", "request_id", "ip",
    )  # fmt: skip
    assert [getattr(counted, name) for name in same] == [getattr(full, name) for name in same]


def test_large_last_values_are_replaced_by_hashes_in_counted_event(world: World, machine: Machine) -> None:
    for number in range(3):
        machine.record("agent.update", {f"field-{number}": "x" * 8170, "n": number}, world=world)
    minute_is_over()

    audit.close_repetitions()

    last = machine.events()[-1].changes["last"]
    assert (last["n"], last["field-1"].keys(), last["field-2"].keys()) == (2, {"size", "sha256"}, {"size", "sha256"})


def test_events_of_people_and_of_agents_and_distinct_events_of_keys_are_recorded_in_full(
    world: World, machine: Machine
) -> None:
    """The events are caused by people or agents, or differ in the key, resource, action or minute."""
    other_key = Machine(world, "deploy")
    agent, _ = world.agent()
    by_agent = Actor("agent", str(agent.pk), "agent")

    for _ in range(2):
        for actor in (world.operator.actor, by_agent):
            audit.record("agent.update", actor=actor, scope=world.dev, resource=("agent", "a"))
    for each, action, resource in (
        (machine, "agent.update", "a"), (machine, "agent.update", "b"), (machine, "agent.drain", "a"),
        (other_key, "agent.update", "a"),
    ):  # fmt: skip
        each.record(action, {}, world=world, resource=resource)
    minute_is_over()
    machine.record("agent.update", {}, world=world)

    assert AuditEvent.objects.filter(action="agent.update", actor_kind__in=["user", "agent"]).count() == 4
    assert (len(machine.events()), len(other_key.events())) == (4, 1)
    assert set(RepeatedEvent.objects.values_list("count", flat=True)) == {0}


def test_events_of_one_bulk_relabeling_count_as_one_repetition(
    world: World, machine: Machine, monkeypatch: Any
) -> None:
    monkeypatch.setattr("apps.fleet.services.labels._AGENTS_PER_EVENT", 2)
    for number in range(5):
        world.agent(name=f"agent-{number}", place="x")

    for zone in ("a", "b", "c"):
        body = {"selector": {"place": "x"}, "set": {"zone": zone}}
        assert machine.api.post(world.path(rest="/agents/labels"), body).json()["changed"] == 5

    assert [event.changes["set"] for event in machine.events()] == [{"zone": "a"}] * 3
    minute_is_over()
    audit.close_repetitions()
    counted = machine.events()[-1].changes
    assert (counted["count"], counted["last"]["set"]) == (2, {"zone": "c"})


def test_denials_of_several_minutes_that_are_recorded_together_stay_separate(world: World, machine: Machine) -> None:
    for minutes_ago, times in ((4, 3), (3, 1), (2, 2)):
        for _ in range(times):
            audit.count_denial("projects.create", actor=machine.actor, organization_id=world.organization.pk)
        newest = DenialCount.objects.latest("minute")
        newest.minute -= timedelta(minutes=minutes_ago)
        newest.save()

    audit.close_denials()

    assert sorted(event.changes["denials"] for event in machine.events(outcome="denied")) == [1, 2, 3]


def test_rolled_back_repetition_is_not_counted(world: World, machine: Machine) -> None:
    machine.record("agent.update", {"n": 0}, world=world)

    with pytest.raises(ValueError, match="refused"), transaction.atomic():  # noqa: PT012  the transaction must fail after the event is recorded
        machine.record("agent.update", {"n": 1}, world=world)
        raise ValueError("refused")

    row = RepeatedEvent.objects.get()
    assert (row.count, row.changes) == (0, {})


def test_webhooks_receive_counted_events_in_order_of_last_repetitions(world: World, machine: Machine) -> None:
    hook = f"/api/v1/orgs/{world.organization.pk}/webhooks"
    world.admin.api.post(hook, {"url": "https://hooks.example.com/", "events": ["deployment.*"]})
    for verb in ("pause", "resume", "pause", "resume", "pause"):
        action = f"deployment.{verb}"
        machine.record(action, {}, world=world)
        RepeatedEvent.objects.filter(action=action).update(last_at=timezone.now())
    minute_is_over()

    audit.close_repetitions()

    sent = WebhookDelivery.objects.order_by("id").values_list("event__action", "event__changes__count")
    assert list(sent) == [
        ("deployment.pause", None), ("deployment.resume", None), ("deployment.resume", 1), ("deployment.pause", 2),
    ]  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_concurrent_repetitions_are_all_counted(concurrently: Race) -> None:
    world = World("acme")
    machine = Machine(world)

    def close() -> None:
        # The minutes may differ, because the test may run past the end of a minute. They stay distinct when all are
        # moved by the same time.
        RepeatedEvent.objects.update(minute=F("minute") - timedelta(minutes=5))
        audit.close_repetitions()

    def act() -> None:
        for _ in range(5):
            with transaction.atomic():
                machine.record("agent.update", {"by": "key"}, world=world)

    assert concurrently(*[act] * 4) == [None] * 4
    assert concurrently(*[act] * 3, close) == [None] * 4
    close()

    assert sum(event.changes.get("count", 1) for event in machine.events()) == 35
