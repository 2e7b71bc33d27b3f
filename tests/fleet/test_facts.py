"""Filters and counts of an environment's agents, and the rows that they read: pulses, their counts, label counts."""

from __future__ import annotations

import importlib
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Count, Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import (
    Agent,
    Assignment,
    ChangedAgent,
    EnrollmentToken,
    Heartbeat,
    LabelCount,
    Liveness,
    Pulse,
    PulseCount,
    RunningInterval,
)
from apps.fleet.services import agents as fleet
from apps.fleet.services import enrollment, facts
from apps.fleet.services.enrollment import Enrollment
from apps.tenancy.credentials import credential_digest
from tests.patience import PATIENCE_S
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db
A, B = (f"sha256:{digit * 64}" for digit in "ab")


def names(world: World, query: str) -> list[str]:
    response = world.viewer.api.get(world.path(rest=f"/agents?{query}"))
    assert response.status_code == 200, response.json()
    return [row["name"] for row in response.json()["results"]]


def beat(agent: Agent, api: Api, **body: Any) -> None:
    body = {"status": "healthy", "agent_version": "1", **body}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200


def assert_counts_are_exact() -> None:
    """Check that the sums of the rows in ``PulseCount`` equal the numbers of pulses."""
    by = ("environment", "drifted", "status", "running_bundle_hash")
    kept = PulseCount.objects.order_by().values_list(*by).annotate(n=Sum("count")).exclude(n=0)
    pulses = Pulse.objects.order_by().values_list(*by).annotate(n=Count("pk"))
    assert sorted(kept, key=repr) == sorted(pulses, key=repr)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("label=zone", ["both", "zoned"]),
        ("label=zone=a", ["zoned"]),
        ("label=!zone", ["tiered", "bare"]),
        ("label=!zone&label=tier", ["tiered"]),
        ("label=zone&label=tier", ["both"]),
        ("label=zone=b&label=tier=edge", ["both"]),
        ("label=zone=a&label=zone=b", []),
        ("label=zone=a&label=zone=a", ["zoned"]),
        ("label=!zone&label=!tier", ["bare"]),
        ("label=!zone,!tier", ["bare"]),
        ("label=zone=b,tier", ["both"]),
        ("label=zone=", []),
        ("label=nothing", []),
        ("label=tier&name=ti", ["tiered"]),
        ("label=zone&hostname=rack-7", ["zoned"]),
        ("hostname=RACK", ["zoned"]),
    ],
)
def test_listed_agents_match_all_label_name_and_host_name_filters(world: World, query: str, found: list[str]) -> None:
    world.agent(name="bare")
    zoned, _ = world.agent(name="zoned", zone="a")
    world.agent(name="tiered", tier="edge")
    world.agent(name="both", zone="b", tier="edge")
    world.agent(world.staging, "elsewhere", zone="a", tier="edge")
    Agent.objects.filter(pk=zoned.pk).update(hostname="rack-7.example")

    assert names(world, query) == sorted(found, key=["both", "tiered", "zoned", "bare"].index)


@pytest.mark.parametrize("query", ["label=", "label==a", "label=a,", "&".join(["label=a"] * 21)])
def test_invalid_label_filter_is_refused(world: World, query: str) -> None:
    response = world.viewer.api.get(world.path(rest=f"/agents?{query}"))

    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "label")


def test_label_filter_accepts_exclamation_mark_as_key(world: World) -> None:
    assert names(world, "label=!") == []


@pytest.mark.parametrize(
    ("beats", "liveness"), [(0, "online"), (2.9, "online"), (3.1, "stale"), (9.9, "stale"), (11, "offline")]
)
def test_liveness_filter_agrees_with_agent_liveness(world: World, beats: float, liveness: str) -> None:
    for name, interval_s in (("slow", 10_000.0), ("quick", 1_000.0)):
        agent, _ = world.agent(name=name)
        seen = timezone.now() - timedelta(seconds=beats * interval_s)
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=seen, next_heartbeat_s=interval_s)

    assert names(world, f"liveness={liveness}") == ["quick", "slow"]
    assert {agent.liveness for agent in Agent.objects.with_state()} == {liveness}
    others = [each for each in Liveness if each != liveness]
    assert [names(world, f"liveness={each}") for each in others] == [[], []]
    assert facts.count(world.dev).liveness == {str(each): 2 * (each == liveness) for each in Liveness}


@pytest.mark.parametrize(
    ("desired", "running", "drifted"),
    [(None, None, False), (None, A, False), (A, A, False), (A, B, True), (A, None, True)],
)
def test_drift_filter_agrees_with_agent_drift(
    world: World, desired: str | None, running: str | None, drifted: bool
) -> None:
    agent, _ = world.agent()
    if desired is not None:
        offer = {"deployment_id": agent.pk, "action": "activate", "since": timezone.now()}
        Assignment.objects.filter(agent=agent).update(bundle_hash=desired, **offer)
    Heartbeat.objects.filter(agent=agent).update(running_bundle_hash=running, running_spec_hash=running)

    assert Agent.objects.with_state().get().drifted is drifted
    assert names(world, "drifted=true") == (["agent"] if drifted else [])
    assert names(world, "drifted=false") == ([] if drifted else ["agent"])
    assert facts.count(world.dev).drifted == drifted


def test_offers_and_heartbeats_update_drift(world: World) -> None:
    agent, api = world.agent()
    running = {"deployment_id": str(agent.pk), "bundle_hash": A, "spec_hash": A}
    offer = {"deployment_id": agent.pk, "action": "activate", "since": timezone.now()}
    beat(agent, api, active=running)
    found = []

    for bundle in (A, B, A, B):
        Assignment.objects.filter(agent=agent).update(bundle_hash=bundle, **offer)
        found.append(facts.count(world.dev).drifted)
    assert found == [0, 1, 0, 1]

    beat(agent, api, active={**running, "bundle_hash": B})
    assert (names(world, "drifted=true"), names(world, "drifted=false")) == ([], ["agent"])


def test_changes_that_do_not_affect_pulse_do_not_mark_agent_as_changed(world: World) -> None:
    agent, api = world.agent(zone="a")
    beat(agent, api)
    facts.settle(world.dev.pk)

    for seconds in range(3):
        beat(agent, api, uptime_s=seconds)
    Assignment.objects.filter(agent=agent).update(progress="active")
    fleet.update_agent(agent, {"name": "new", "labels": {}}, may_relabel=True, actor=world.admin.actor)

    assert not ChangedAgent.objects.exists()


@pytest.mark.parametrize("read", [lambda world: facts.count(world.dev), lambda world: names(world, "limit=1")])
def test_changed_agents_are_settled_by_first_read_of_environment_or_by_job(world: World, read: Any) -> None:
    world.agent()
    world.agent(world.staging)
    assert (ChangedAgent.objects.exists(), Pulse.objects.count()) == (True, 0)

    read(world)
    assert set(ChangedAgent.objects.values_list("environment", flat=True)) == {world.staging.pk}

    facts.maintain()
    assert (ChangedAgent.objects.exists(), Pulse.objects.count()) == (False, 2)


def test_changed_agents_of_one_batch_add_at_most_one_query(world: World) -> None:
    for number in range(20):
        world.agent(name=f"agent-{number}")
    facts.maintain()
    costs = []

    for changed in (0, 1, 20):
        Heartbeat.objects.filter(agent__name__in=[f"agent-{number}" for number in range(changed)]).update(
            status=f"status-{changed}"
        )
        with CaptureQueriesContext(connection) as queries:
            names(world, "limit=200")
        costs.append(len(queries))

    assert costs[1] == costs[2] <= costs[0] + 1


def test_counts_are_correct_when_changed_agents_exceed_one_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "BATCH_SIZE", 2)
    agents = [world.agent(name=f"agent-{number}")[0] for number in range(5)]
    for status in ("degraded", "failed"):
        Heartbeat.objects.update(status=status, last_seen_at=timezone.now())

    assert facts.count(world.dev).status["failed"] == 5
    # While no fact changes, only the job extends ``online_until``. That changes no count.
    facts.maintain()
    Pulse.objects.update(online_until=timezone.now())
    counts = list(PulseCount.objects.values())
    facts.maintain()
    assert list(PulseCount.objects.values()) == counts
    assert Pulse.objects.filter(agent__in=agents, online_until__gt=timezone.now() + timedelta(seconds=60)).count() == 5


def test_online_until_is_not_too_late_after_heartbeat_interval_changes(world: World) -> None:
    """Until ``online_until``, no heartbeat is read. If that time were too late, a stale agent would count as online."""
    agent, _ = world.agent()
    now = timezone.now()
    beats = Heartbeat.objects.filter(agent=agent)
    # In order: the configured interval, a longer one under load, one of a shorter earlier setting, the configured one.
    for interval_s in (30, 300, 20, 30):
        beats.update(last_seen_at=now, next_heartbeat_s=interval_s)
        facts.settle(world.dev.pk)
    assert Pulse.objects.get().online_until <= now + 3 * timedelta(seconds=0.9 * 30)

    world.dev.settings["heartbeat_interval_s"] = 10
    world.dev.save()
    facts.settle(world.dev.pk)
    assert Pulse.objects.get().online_until <= now + 3 * timedelta(seconds=0.9 * 10)
    facts.refresh(world.dev.pk)
    assert Pulse.objects.get().online_until <= now + 3 * timedelta(seconds=0.9 * 10)


def test_silent_agent_is_online_immediately_after_its_next_heartbeat(world: World) -> None:
    agent, api = world.agent()
    beats = Heartbeat.objects.filter(agent=agent)
    found = []

    for silent_s in (60, 80, 100, 400):
        beats.update(last_seen_at=timezone.now() - timedelta(seconds=silent_s), next_heartbeat_s=30)
        counted = facts.count(world.dev).liveness
        found.append((*(each for each in counted if counted[each]), Pulse.objects.get().offline_at is not None))

    assert found == [("online", False), ("online", True), ("stale", True), ("offline", True)]
    beat(agent, api)
    assert (names(world, "liveness=online"), names(world, "liveness=offline")) == (["agent"], [])


def test_last_heartbeat_decides_liveness_after_stored_end_of_online_period(world: World) -> None:
    agent, _ = world.agent()
    facts.settle(world.dev.pk)
    for silent_s, liveness in ((0, "online"), (100, "stale"), (400, "offline")):
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now() - timedelta(seconds=silent_s))
        facts.settle(world.dev.pk)
        Pulse.objects.update(online_until=timezone.now() - timedelta(hours=1), offline_at=None)

        assert names(world, f"liveness={liveness}") == ["agent"]
        assert sum(len(names(world, f"liveness={each}")) for each in Liveness) == 1
        assert facts.count(world.dev).liveness[liveness] == facts.count(world.dev).total == 1


def test_liveness_follows_last_stored_heartbeat_after_clock_was_set_back(world: World) -> None:
    agent, _ = world.agent()
    now = timezone.now()
    for hours in (5, 0, 2):
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=now - timedelta(hours=hours))

    assert facts.count(world.dev).liveness == {"online": 0, "stale": 0, "offline": 1}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["offer", "heartbeat"])
def test_drift_is_correct_after_concurrent_offer_and_heartbeat(world: World, concurrently: Race, first: str) -> None:
    """The offer and the heartbeat do not wait for each other, and the order of their commits does not matter."""
    agent, _ = world.agent()
    Assignment.objects.filter(agent=agent).update(bundle_hash=A, deployment_id=agent.pk)
    Heartbeat.objects.filter(agent=agent).update(running_bundle_hash=A, running_spec_hash=A)
    written, finished = threading.Event(), threading.Event()

    def offer() -> None:
        Assignment.objects.filter(agent=agent).update(bundle_hash=B)

    def store() -> None:
        Heartbeat.objects.filter(agent=agent).update(running_bundle_hash=A, running_spec_hash=A)

    outer, inner = (offer, store) if first == "offer" else (store, offer)

    def hold() -> None:
        with transaction.atomic():
            outer()
            written.set()
            assert finished.wait(PATIENCE_S)

    def meet() -> None:
        assert written.wait(PATIENCE_S)
        inner()
        finished.set()

    assert concurrently(hold, meet) == [None, None]
    assert facts.count(world.dev).drifted == 1
    assert Agent.objects.with_state().get().drifted


def test_agent_filters_by_status_progress_and_bundle_use_latest_values(world: World) -> None:
    one, one_api = world.agent(name="one")
    two, two_api = world.agent(name="two")
    beat(one, one_api, status="degraded")
    beat(two, two_api, active={"deployment_id": str(one.pk), "bundle_hash": A, "spec_hash": B})
    Assignment.objects.filter(agent=two).update(progress="active")

    assert (names(world, "status=degraded"), names(world, "status=healthy")) == (["one"], ["two"])
    assert (names(world, f"bundle_hash={A}"), names(world, f"bundle_hash={B}")) == (["two"], [])
    assert (names(world, "progress=active"), names(world, "progress=pending")) == (["two"], ["one"])
    beat(one, one_api)
    beat(two, two_api)
    assert (names(world, "status=healthy"), names(world, f"bundle_hash={A}")) == (["two", "one"], [])


def test_decommissioned_agents_are_neither_listed_nor_counted(world: World) -> None:
    stays, _ = world.agent(name="stays", zone="a", tier="edge")
    leaves, _ = world.agent(name="leaves", zone="a", rack="7")

    fleet.decommission(leaves, actor=world.admin.actor)

    counted = facts.count(world.dev)
    assert [pulse.agent_id for pulse in Pulse.objects.all()] == [stays.pk]
    assert (counted.total, counted.labels) == (1, {"tier": {"edge": 1}, "zone": {"a": 1}})
    assert names(world, "liveness=online") == ["stays"]
    # A heartbeat that is stored late does not count the agent again.
    Heartbeat.objects.filter(agent=leaves).update(status="healthy")
    assert facts.count(world.dev).total == 1


def test_label_counts_reflect_single_and_bulk_relabeling_and_decommissioning(world: World) -> None:
    agents = [world.agent(name=f"agent-{number}", zone="ab"[number % 2])[0] for number in range(3)]
    world.agent(world.staging, zone="a")
    assert facts.count(world.dev).labels == {"zone": {"a": 2, "b": 1}}

    fleet.update_agent(agents[0], {"labels": {"zone": "b", "tier": "edge"}}, may_relabel=True, actor=world.admin.actor)
    assert facts.count(world.dev).labels == {"zone": {"b": 2, "a": 1}, "tier": {"edge": 1}}

    Agent.objects.filter(environment=world.dev).update(labels={"zone": "c"})  # one statement that changes many agents
    assert facts.count(world.dev).labels == {"zone": {"c": 3}}

    facts.condense()
    assert list(LabelCount.objects.filter(environment=world.dev).values_list("key", "value", "count")) == [
        ("zone", "c", 3)
    ]
    assert facts.count(world.dev).labels == {"zone": {"c": 3}}
    fleet.decommission(agents[0], actor=world.admin.actor)
    assert facts.count(world.dev).labels == {"zone": {"c": 2}}


def test_renaming_agent_changes_no_label_count(world: World) -> None:
    agent, _ = world.agent(zone="a")
    before = LabelCount.objects.count()

    fleet.update_agent(agent, {"name": "new"}, may_relabel=True, actor=world.admin.actor)

    assert LabelCount.objects.count() == before


def test_label_counts_contain_at_most_50_values_per_key(world: World) -> None:
    agents = [Agent(environment=world.dev, name=f"{n}", labels={"rack": f"{n:03}", "zone": "a"}) for n in range(60)]
    Agent.objects.bulk_create([*agents, Agent(environment=world.dev, name="x", labels={"rack": "059"})])

    labels = facts.count(world.dev).labels

    assert labels["zone"] == {"a": 60}
    assert list(labels["rack"].items())[:2] == [("059", 2), ("000", 1)]
    assert len(labels["rack"]) == 50


@pytest.mark.django_db(transaction=True)
def test_label_counts_stay_exact_when_condensed_during_relabeling(world: World, concurrently: Race) -> None:
    agents = [world.agent(name=f"agent-{number}", zone="a")[0] for number in range(4)]

    def relabel(agent: Agent) -> None:
        for zone in "bcd":
            fleet.update_agent(agent, {"labels": {"zone": zone}}, may_relabel=True, actor=world.admin.actor)

    responses = concurrently(*(lambda agent=agent: relabel(agent) for agent in agents), facts.condense, facts.condense)

    assert responses == [None] * 6
    assert facts.count(world.dev).labels == {"zone": {"d": 4}}
    facts.condense()
    assert facts.count(world.dev).labels == {"zone": {"d": 4}}


def test_deleting_environment_row_deletes_its_counts_and_history(world: World) -> None:
    agent, _ = world.agent(zone="a")
    facts.settle(world.dev.pk)
    Heartbeat.objects.filter(agent=agent).update(running_bundle_hash=A, running_spec_hash=B)

    world.dev.delete()

    models = (Pulse, PulseCount, ChangedAgent, LabelCount, RunningInterval)
    assert [model._default_manager.count() for model in models] == [0] * 5


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("leaves", ["decommissioned", "replaced"])
def test_heartbeats_do_not_wait_while_agents_are_removed(world: World, concurrently: Race, leaves: str) -> None:
    """A transaction may remove agents in any order, so heartbeats that waited for it could deadlock."""
    first, second = sorted((world.agent(name=f"agent-{number}")[0] for number in range(2)), key=lambda each: each.pk)
    token = EnrollmentToken.objects.get(digest=credential_digest(world.enrollment_token(replace=True, max_uses=2)))
    removed, stored = threading.Event(), threading.Event()

    def remove(agent: Agent) -> None:
        if leaves == "decommissioned":
            fleet.decommission(agent, actor=world.admin.actor)
        else:
            enrollment.enroll(Enrollment(token=token, environment=world.dev, name=agent.name, actor=world.admin.actor))

    def remove_both() -> None:
        with transaction.atomic():
            remove(second)
            removed.set()
            assert stored.wait(PATIENCE_S)
            remove(first)

    def store_both() -> None:
        assert removed.wait(PATIENCE_S)
        heartbeats = Heartbeat.objects.filter(agent__in=[first, second])
        assert heartbeats.update(status="failed", running_bundle_hash=A, running_spec_hash=B) == 2
        stored.set()

    assert concurrently(remove_both, store_both) == [None, None]
    total = facts.count(world.dev).total
    assert not Pulse.objects.filter(agent__in=[first, second]).exists()
    assert total == (0 if leaves == "decommissioned" else 2)


@pytest.mark.django_db(transaction=True)
def test_settling_changed_agents_neither_waits_for_heartbeats_nor_loses_changes(
    world: World, concurrently: Race
) -> None:
    agent, _ = world.agent()
    stored, settled = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Heartbeat.objects.filter(agent=agent).update(status="failed")
            stored.set()
            assert settled.wait(PATIENCE_S)

    def settle() -> None:
        assert stored.wait(PATIENCE_S)
        facts.settle(world.dev.pk)
        assert Pulse.objects.get().status is None
        settled.set()

    assert concurrently(hold, settle) == [None, None]
    assert facts.count(world.dev).status["failed"] == 1


@pytest.mark.django_db(transaction=True)
def test_pulses_are_correct_after_changes_during_settling(world: World, concurrently: Race) -> None:
    agents = [world.agent(name=f"agent-{number}")[0] for number in range(3)]

    def change(agent: Agent) -> None:
        for number in range(10):
            Heartbeat.objects.filter(agent=agent).update(status=("healthy", "failed")[number % 2])
            Assignment.objects.filter(agent=agent).update(bundle_hash=(None, A)[number % 2])

    def settle() -> None:
        for _ in range(10):
            facts.settle(world.dev.pk)

    assert concurrently(*(lambda agent=agent: change(agent) for agent in agents), settle, settle) == [None] * 5
    counted = facts.count(world.dev)
    assert (counted.total, counted.status["failed"], counted.drifted) == (3, 3, 3)
    assert_counts_are_exact()
    assert (
        concurrently(facts.condense, facts.condense, *(lambda each=each: change(each) for each in agents)) == [None] * 5
    )
    facts.maintain()
    assert_counts_are_exact()
    assert PulseCount.objects.count() == 1


def test_migrations_and_triggers_lead_to_same_pulses_intervals_and_counts(world: World) -> None:
    for number, (running, desired) in enumerate([(None, None), (A, None), (A, A), (A, B), (None, B)]):
        agent, api = world.agent(name=f"agent-{number}", zone="ab"[number % 2], rack=f"{number}")
        if desired is not None:
            offer = {"deployment_id": agent.pk, "action": "activate", "since": timezone.now()}
            Assignment.objects.filter(agent=agent).update(bundle_hash=desired, bundle_size=1, **offer)
        active = {"deployment_id": str(agent.pk), "bundle_hash": running, "spec_hash": B}
        beat(agent, api, active=active if running else None)
    world.agent(name="silent", zone="c")
    leaves, api = world.agent(name="leaves", zone="a")
    beat(leaves, api)
    fleet.decommission(leaves, actor=world.admin.actor)
    facts.maintain()
    models = (Pulse, RunningInterval, LabelCount)

    def rows() -> list[list[tuple[Any, ...]]]:
        names = [[f.attname for f in model._meta.concrete_fields if f.attname != "id"] for model in models]
        return [
            sorted(model._default_manager.values_list(*columns), key=repr)
            for model, columns in zip(models, names, strict=True)
        ]

    written = rows()
    assert [len(each) for each in written] == [6, 3, 8]
    for model in models:
        model._default_manager.all().delete()

    with connection.cursor() as cursor:
        cursor.execute(importlib.import_module("apps.fleet.migrations.0005_history_and_facts").PRESENT)
    facts.maintain()

    assert rows() == written
    PulseCount.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(importlib.import_module("apps.fleet.migrations.0007_pulse_counts").PRESENT)
    assert_counts_are_exact()
