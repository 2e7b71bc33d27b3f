"""Events about agents that went offline, failed, or seem to run on two machines."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent, Assignment, Heartbeat
from apps.fleet.services import agents as fleet
from apps.fleet.services import facts
from apps.notifications.models import AgentWatch, NotifiedState
from apps.notifications.services.sweeps import agents as sweep
from apps.releases.models import ConfigBundle
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import Environment, MessageEvent
from apps.tenancy.services import organizations
from tests.notifications.fleets import GONE, beat, enroll, look, pass_time, recorded, serve, silence, watch
from tests.notifications.stories import handle, notified_of
from tests.races import Race
from tests.releases.stories import bundles, offered
from tests.worlds import World, report, run_jobs

pytestmark = pytest.mark.django_db
FAILED = MessageType.AGENTS_FAILED


@pytest.fixture
def world(world: World) -> World:
    """Return a world whose server has been up for a day, and store that the agent sweep ran a minute ago."""
    serve()
    watch()
    return world


def test_one_message_about_all_agents_that_went_offline_links_to_list(world: World, bundle: ConfigBundle) -> None:
    found = enroll(world, *(f"edge-{number}" for number in range(1, 6)))
    silence(*(agent for agent, _ in found[:4]))

    look()
    handle(world)

    event = MessageEvent.objects.get()
    assert event.outcome == EventOutcome.NOTIFIED
    assert event.text == "4 agents in prod went offline: edge-1, edge-2, edge-3 and 1 more."
    assert event.path == (
        f"/admin/fleet/agent/?in={world.prod.pk}&environment__id__exact={world.prod.pk}&enrolled=yes&liveness=offline"
    )
    page = world.viewer.api.get(world.path(world.prod, "/agents?liveness=offline")).json()
    assert len(page["results"]) == 4
    assert notified_of(world.viewer) == [MessageType.AGENTS_OFFLINE]


def test_message_about_one_offline_agent_names_it(world: World, bundle: ConfigBundle) -> None:
    ((agent, _),) = enroll(world, "edge-1")
    silence(agent)

    look()
    handle(world)

    assert MessageEvent.objects.get().text == "Agent edge-1 in prod went offline."


def test_offline_agent_notifies_once_and_again_after_it_came_back(world: World) -> None:
    ((agent, api),) = enroll(world, "edge-1")
    silence(agent)
    look()
    look()
    pass_time()
    look()
    assert recorded() == [("prod", 1, ["edge-1"])]

    beat(agent, api)
    look()
    silence(agent)
    look()

    assert recorded() == [("prod", 1, ["edge-1"])] * 2


def test_online_and_late_agents_notify_nobody(world: World) -> None:
    _, (late, _) = enroll(world, "online", "late")
    silence(late, for_=GONE - timedelta(seconds=20))

    look()

    assert recorded() == []


def test_never_seen_drained_and_decommissioned_agents_notify_nobody(world: World) -> None:
    never, _ = world.agent(world.prod, "never")
    Agent.objects.filter(pk=never.pk).update(created_at=timezone.now() - timedelta(hours=1))
    (gone, _), (drained, _) = enroll(world, "gone", "drained")
    silence(gone, drained)
    fleet.decommission(gone, actor=world.admin.actor)
    fleet.set_drained(drained, drained=True, reason="Repairs", actor=world.admin.actor)

    look()
    facts.maintain()
    look()

    assert recorded() == []


def test_environment_gets_one_message_in_ten_minutes_and_next_message_covers_other_agents(world: World) -> None:
    found = enroll(world, "edge-1", "edge-2", "edge-3")
    silence(found[0][0])
    look()
    silence(found[1][0])
    look()
    pass_time(timedelta(minutes=9))
    silence(found[2][0])
    look()
    assert len(recorded()) == 1

    pass_time()
    beat(*found[2])
    look()

    assert recorded() == [("prod", 1, ["edge-1"]), ("prod", 1, ["edge-2"])]


def test_environments_and_tenants_get_separate_messages(world: World, other: World) -> None:
    agents = [*enroll(world, "a"), *enroll(world, "b", environment=world.dev), *enroll(other, "c")]
    silence(*(agent for agent, _ in agents))

    look()

    assert sorted(recorded()) == [("dev", 1, ["b"]), ("prod", 1, ["a"]), ("prod", 1, ["c"])]
    offline = MessageEvent.objects.filter(type=MessageType.AGENTS_OFFLINE)
    assert offline.get(organization=other.organization).data["names"] == ["c"]


def test_deleted_environments_and_projects_notify_nobody(world: World, other: World) -> None:
    agents = [*enroll(world, "a"), *enroll(other, "b")]
    silence(*(agent for agent, _ in agents))
    organizations.delete(world.prod, kind="environment", actor=world.admin.actor)
    organizations.delete(other.project, kind="project", actor=other.admin.actor)

    look()

    assert recorded() == []
    assert not NotifiedState.objects.exists()


def test_notified_state_of_deleted_agent_is_deleted(world: World) -> None:
    ((agent, _),) = enroll(world, "edge-1")
    silence(agent)
    look()
    assert NotifiedState.objects.count() == 1

    agent.delete()
    look()

    assert NotifiedState.objects.count() == 0


def test_first_sweep_ignores_agents_that_were_already_offline(world: World) -> None:
    AgentWatch.objects.all().delete()
    (before, _), (after, _) = enroll(world, "before", "after")
    silence(before)

    look()
    watch()
    assert recorded() == []

    silence(after)
    look()

    assert recorded() == [("prod", 1, ["after"])]


@pytest.mark.parametrize("outage", ["server restarted", "no server", "only a worker", "sweep paused"])
def test_outage_of_control_plane_gives_agents_ten_intervals_to_come_back(world: World, outage: str) -> None:
    (back, api), (lost, _) = enroll(world, "back", "lost")
    silence(back, lost)
    host = serve()
    type(host).objects.exclude(pk=host.pk).delete()
    if outage == "server restarted":
        type(host).objects.update(started_at=timezone.now() - timedelta(seconds=10))
    elif outage == "sweep paused":
        watch(looked_ago=timedelta(minutes=3))
    else:
        type(host).objects.update(mode="worker")
        if outage == "no server":
            type(host).objects.all().delete()

    look()
    look()
    assert recorded() == []

    type(host).objects.all().delete()
    serve()
    beat(back, api)
    since = AgentWatch.objects.get().reachable_since
    assert since is not None
    assert timezone.now() - since < GONE
    AgentWatch.objects.update(reachable_since=since - GONE)
    look()

    assert recorded() == [("prod", 1, ["lost"])]


def test_many_agents_that_go_silent_together_notify_nobody_while_no_heartbeat_arrives(world: World) -> None:
    ((agent, api),) = enroll(world, "edge-0")
    made = [Agent(environment=world.prod, name=f"edge-{number}") for number in range(1, 150)]
    Agent.objects.bulk_create(made)
    Heartbeat.objects.bulk_create(
        [Heartbeat(agent=each, status="healthy", next_heartbeat_s=30, last_seen_at=timezone.now()) for each in made]
    )
    Assignment.objects.bulk_create([Assignment(agent=each) for each in made])
    silence(agent, *made)

    look()
    look()
    assert recorded() == []

    beat(agent, api)
    look()
    assert recorded() == []  # the other agents have ten intervals to come back

    watch()
    look()

    assert recorded() == [("prod", 149, ["edge-1", "edge-10", "edge-100"])]


def test_failed_status_notifies_once_until_agent_recovers(world: World, bundle: ConfigBundle) -> None:
    ((agent, api),) = enroll(world, "edge-1")
    beat(agent, api, "failed")
    look()
    pass_time()
    look()
    assert recorded(FAILED) == [("prod", 1, ["edge-1"])]

    beat(agent, api)
    look()
    beat(agent, api, "failed")
    look()
    handle(world)

    assert recorded(FAILED) == [("prod", 1, ["edge-1"])] * 2
    event = MessageEvent.objects.filter(type=FAILED).latest("pk")
    assert event.text == "Agent edge-1 in prod failed."
    assert event.path.endswith("&enrolled=yes")


def test_each_failed_deployment_notifies_once_without_text_of_report(world: World) -> None:
    agents = enroll(world, "edge-1", "edge-2", environment=world.dev)
    for bundle in bundles(world, 2):
        offered(world, bundle)
        assert report(agents[0][1], agents[0][0], "failed", detail="secret payload").status_code == 200
        run_jobs()
        look()
        pass_time()
        look()

    assert recorded(FAILED) == [("dev", 1, ["edge-1"])] * 2
    assert not MessageEvent.objects.filter(type=FAILED, data__icontains="secret").exists()


def test_concurrent_sweeps_record_each_agent_once(concurrently: Race, world: World) -> None:
    found = enroll(world, "edge-1", "edge-2")
    silence(*(agent for agent, _ in found))

    assert concurrently(look, look, look) == [None] * 3

    assert recorded() == [("prod", 2, ["edge-1", "edge-2"])]


def test_event_missed_by_killed_sweep_is_recorded_by_next_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ((agent, _),) = enroll(world, "edge-1")
    silence(agent)

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AgentWatch, "save", kill)
        with pytest.raises(KeyboardInterrupt):
            look()
    assert (recorded(), NotifiedState.objects.count()) == ([], 0)
    look()

    assert recorded() == [("prod", 1, ["edge-1"])]


def test_number_of_queries_does_not_depend_on_number_of_agents_and_environments(world: World) -> None:
    def count(*environments: Environment) -> int:
        for environment in environments:
            agents = enroll(world, *(f"{environment}-{n}" for n in range(3)), environment=environment)
            silence(*(agent for agent, _ in agents))
            beat(*agents[0], status="failed")
        with CaptureQueriesContext(connection) as queries:
            look()
            sweep.record_clones()
        return len(queries)

    assert count(world.dev) == count(world.staging, world.prod)


def test_each_suspected_clone_records_one_event_which_is_obsolete_if_suspicion_is_cleared(
    world: World, bundle: ConfigBundle
) -> None:
    ((agent, api),) = enroll(world, "edge-1")
    for boot in ("one", "two", "one"):
        beat(agent, api, boot_id=boot)
    sweep.record_clones()
    sweep.record_clones()
    handle(world)

    event = MessageEvent.objects.get()
    assert (event.type, event.outcome) == (MessageType.AGENT_CLONED, EventOutcome.NOTIFIED)
    assert event.text == "Agent edge-1 in prod seems to run on two machines."
    assert event.path == f"/admin/fleet/agent/{agent.pk}/change/"

    Heartbeat.objects.filter(agent=agent).update(clone_suspected_at=timezone.now())
    sweep.record_clones()
    Heartbeat.objects.filter(agent=agent).update(clone_suspected_at=None)
    handle(world)

    assert list(MessageEvent.objects.order_by("pk").values_list("outcome", flat=True)) == ["notified", "obsolete"]


def test_suspected_clones_notify_nobody_if_agent_is_decommissioned_or_environment_deleted(world: World) -> None:
    (gone, _), _ = [*enroll(world, "gone"), *enroll(world, "deleted", environment=world.dev)]
    Heartbeat.objects.update(clone_suspected_at=timezone.now())
    fleet.decommission(gone, actor=world.admin.actor)
    organizations.delete(world.dev, kind="environment", actor=world.admin.actor)

    sweep.record_clones()

    assert not MessageEvent.objects.filter(type=MessageType.AGENT_CLONED).exists()
