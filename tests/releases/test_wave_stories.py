"""Waves told as stories: the threshold, who was touched and who never saw it, and fleets that change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from apps.fleet import services as fleet
from apps.fleet.models import Agent, Assignment
from apps.releases.models import AgentReport, Deployment, KnownBad
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent
from tests.releases import stories
from tests.worlds import Api, World, plan, report

pytestmark = pytest.mark.django_db

type Run = Callable[[], int]


def waves(*percents: int, pause_s: int = 0, threshold: int = 0, auto_rollback: bool = True) -> dict[str, Any]:
    return {
        "kind": "waves", "percents": list(percents), "pause_s": pause_s, "failure_threshold_percent": threshold,
        "auto_rollback": auto_rollback,
    }  # fmt: skip


def all_say(agents: stories.Fleet, status: str, run_jobs: Run) -> None:
    for agent, api in agents:
        assert report(api, agent, status).status_code == 200
    run_jobs()


def beat(agent: Agent, api: Api) -> Any:
    """What a heartbeat's answer desires."""
    answer = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})
    assert answer.status_code == 200
    return answer.json()["desired"]


def assignments(agents: stories.Fleet) -> list[Any]:
    """Everything that is stored of what these agents should run."""
    return list(Assignment.objects.filter(agent__in=[agent for agent, _ in agents]).order_by("agent_id").values())


def state(deployment: Deployment) -> tuple[str, str]:
    deployment.refresh_from_db()
    return deployment.status, deployment.reason


def events(deployment: Deployment) -> list[str]:
    return list(deployment.timeline.order_by("id").values_list("event", flat=True))


def time_passes(run_jobs: Run) -> None:
    """The sweep looks after everything once."""
    sweep()
    run_jobs()


def wanted(agents: stories.Fleet) -> list[tuple[Any, str | None]]:
    return [stories.desired(agent) for agent, _ in agents]


# -- the threshold --------------------------------------------------------------------------------------------------


def test_over_the_threshold_it_goes_no_further_and_back(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 20)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    touched, others = agents[:10], agents[10:]
    beats_before = [beat(*each) for each in others]
    assignments_before = assignments(others)
    etags = [api.get(f"/api/v1/agents/{agent.pk}/deployment")["ETag"] for agent, api in others]
    second = stories.offered(world, two, strategy=waves(10, 50, 100, threshold=25))
    all_say(touched[:2], "active", run_jobs)
    assert stories.progress(second) == ["active"] * 2 + ["offered"] * 8 + ["pending"] * 10

    # Two of eight are a quarter: not more than the threshold.
    all_say(touched[2:4], "failed", run_jobs)
    all_say(touched[4:6], "active", run_jobs)
    all_say(touched[6:7], "downloading", run_jobs)
    assert state(second) == ("deploying", "")
    all_say(touched[7:8], "failed", run_jobs)

    assert state(second) == ("rolling_back", "threshold")
    assert (second.detail, second.restores, second.wave) == ("3 of 8 agents of wave 2 failed", first, 1)
    assert wanted(touched) == [(second.pk, "rollback")] * 10
    assert {a["bundle_hash"] for a in assignments(touched)} == {first.bundle_hash}
    time_passes(run_jobs)
    all_say(touched, "rolled_back", run_jobs)
    time_passes(run_jobs)
    first.refresh_from_db()
    assert (state(second), second.is_current, first.is_current) == (("rolled_back", "threshold"), False, True)
    assert events(second) == ["create", "build", "offer", "fail", "roll_back", "restore"]

    # The others never saw it.
    assert stories.progress(second) == ["rolled_back"] * 10 + ["pending"] * 10
    never = second.agents.filter(agent__in=[agent for agent, _ in others])
    assert set(never.values_list("action", "offered_at", "wave", "detail")) == {("activate", None, 2, "")}
    assert not AgentReport.objects.filter(deployment=second, agent__in=[agent for agent, _ in others]).exists()
    assert assignments(others) == assignments_before
    assert [beat(*each) for each in others] == beats_before
    for (agent, api), etag in zip(others, etags, strict=True):
        assert api.get(f"/api/v1/agents/{agent.pk}/deployment", If_None_Match=etag).status_code == 304

    # The configuration is barred, under any name, until it is cleared.
    assert KnownBad.objects.get().config_hash == second.config_hash
    assert AuditEvent.objects.filter(action="config.bar").count() == 1
    again = world.bundle(name="the same", version=two.version, env={"NUMBER": "1"})
    assert again.config_hash == two.config_hash
    path, count = world.path(rest="/deployments"), Deployment.objects.count()
    for bundle in (two, again):
        body = {"config_bundle_id": str(bundle.pk), "target": {"all": True}}
        answer = world.operator.api.post(path, body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:byteor:problem:known_bad")
    assert Deployment.objects.count() == count
    cleared = world.operator.api.post(world.path(rest=f"/config-bundles/{two.pk}/clear"), {"reason": "disk was full"})
    assert cleared.json()["known_bad"] is False
    third = stories.offered(world, again, strategy=waves(10, 100))
    assert wanted(agents[:3]) == [(third.pk, "activate")] * 2 + [(second.pk, "rollback")]


def test_without_a_rollback_it_only_stops(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 6)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100, auto_rollback=False))
    all_say(agents[:1], "active", run_jobs)

    all_say(agents[1:2], "failed", run_jobs)
    time_passes(run_jobs)

    assert state(second) == ("failed", "threshold")
    # Who runs it goes on, who failed it knows what it failed, and who had not begun is to run what it runs.
    assert wanted(agents) == [(second.pk, "activate")] * 2 + [(first.pk, "activate")] * 4
    assert stories.progress(second) == ["active", "failed"] + ["pending"] * 4
    first.refresh_from_db()
    assert first.is_current
    assert KnownBad.objects.count() == 1


def test_the_threshold_is_of_each_wave(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 8)
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100, threshold=25))

    for wave in (agents[:4], agents[4:]):
        all_say(wave[:1], "failed", run_jobs)
        all_say(wave[1:], "active", run_jobs)

    # Two of eight failed, one in each wave: none was over its quarter.
    assert state(second) == ("active", "")
    assert stories.progress(second) == ["failed", "active", "active", "active"] * 2
    assert KnownBad.objects.count() == 0


def test_reports_that_come_with_the_fatal_one_are_kept(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 4)
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100))

    # All before the worker looks: the wave is complete and over the threshold in one step.
    all_say([agents[0]], "failed", lambda: 0)
    all_say([agents[1]], "active", run_jobs)

    assert state(second) == ("rolling_back", "threshold")
    assert report(agents[1][1], agents[1][0], "active").status_code == 409
    all_say(agents[:2], "rolled_back", run_jobs)
    assert state(second)[0] == "rolled_back"
    assert stories.progress(second) == ["rolled_back", "rolled_back", "pending", "pending"]


# -- time -----------------------------------------------------------------------------------------------------------


def test_the_pause_is_between_the_waves(world: World, run_jobs: Run, clock: stories.Clock) -> None:
    agents = stories.fleet(world, 3)
    deployment = stories.offered(world, world.bundle(), strategy=waves(30, 60, 100, pause_s=300))
    clock.forward(seconds=100)
    all_say(agents[:1], "active", run_jobs)

    for wave, before in enumerate((["active"], ["active", "active"])):
        rest = ["pending"] * (3 - len(before))
        clock.forward(seconds=299)
        time_passes(run_jobs)
        deployment.refresh_from_db()
        assert (deployment.wave, stories.progress(deployment)) == (wave, before + rest)
        clock.forward(seconds=1)
        time_passes(run_jobs)
        deployment.refresh_from_db()
        assert (deployment.wave, stories.progress(deployment)) == (wave + 1, [*before, "offered", *rest[1:]])
        all_say(agents[wave + 1 : wave + 2], "active", run_jobs)

    # After the last one there is nothing to pause for.
    assert state(deployment) == ("active", "")


def test_a_pause_by_hand_outlasts_the_one_between_waves(world: World, run_jobs: Run, clock: stories.Clock) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, pause_s=60))
    all_say(agents[:1], "active", run_jobs)
    path = world.path(rest=f"/deployments/{deployment.pk}")
    assert world.operator.api.post(f"{path}/pause", {}).status_code == 200

    clock.forward(hours=5)
    time_passes(run_jobs)
    assert stories.progress(deployment) == ["active", "pending"]
    assert world.operator.api.post(f"{path}/resume", {}).status_code == 200
    run_jobs()

    assert stories.progress(deployment) == ["active", "offered"]


def test_agents_that_never_finish_are_borne_up_to_the_threshold(
    world: World, run_jobs: Run, clock: stories.Clock
) -> None:
    agents = stories.fleet(world, 8)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, threshold=25))
    (silent, silent_api) = agents[0]
    all_say(agents[1:4], "active", run_jobs)
    clock.forward(seconds=599)
    time_passes(run_jobs)
    assert stories.progress(deployment)[:5] == ["offered", "active", "active", "active", "pending"]

    clock.forward(seconds=1)
    time_passes(run_jobs)

    assert stories.progress(deployment) == ["failed", "active", "active", "active"] + ["offered"] * 4
    assert deployment.agents.get(agent=silent).detail == "did not finish within 600 s"
    late = report(silent_api, silent, "active")
    assert (late.status_code, late.json()["type"]) == (409, "urn:byteor:problem:late_report")
    all_say(agents[4:], "active", run_jobs)
    assert state(deployment) == ("active", "")
    assert stories.progress(deployment)[0] == "failed"


def test_agents_that_never_finish_stop_it_and_those_that_never_answer_fail_the_way_back(
    world: World, run_jobs: Run, clock: stories.Clock
) -> None:
    agents = stories.fleet(world, 8)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100, threshold=25))
    all_say(agents[2:4], "active", run_jobs)

    clock.forward(seconds=600)
    time_passes(run_jobs)

    assert state(second) == ("rolling_back", "timeout")
    assert second.detail == "2 of 4 agents of wave 1 failed, 2 of them by not finishing within 600 s"
    assert wanted(agents) == [(second.pk, "rollback")] * 4 + [(first.pk, "activate")] * 4
    all_say(agents[1:4], "rolled_back", run_jobs)
    clock.forward(seconds=599)
    time_passes(run_jobs)
    assert state(second)[0] == "rolling_back"
    clock.forward(seconds=1)
    time_passes(run_jobs)

    assert state(second) == ("failed", "rollback_failed")
    assert second.detail == f"1 agent(s) did not roll back: {agents[0][0].pk}"
    assert stories.progress(second) == ["failed", *["rolled_back"] * 3, *["pending"] * 4]
    # All are served what they ran before, the silent one too, whenever it comes back.
    assert {a["bundle_hash"] for a in assignments(agents)} == {first.bundle_hash}
    first.refresh_from_db()
    assert first.is_current


# -- fleets that change ---------------------------------------------------------------------------------------------


def test_who_was_offline_at_the_start_holds_up_no_wave(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 4)
    (away, away_api) = agents[1]
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    stories.unheard(away, for_s=301)
    second = stories.offered(world, two, strategy=waves(50, 100))
    assert stories.progress(second) == ["offered", "offered", "pending", "pending"]

    all_say(agents[:1], "active", run_jobs)
    assert stories.progress(second) == ["active", "offered", "offered", "offered"]
    # Back again, it counts as little as before.
    assert report(away_api, away, "failed").status_code == 200
    all_say(agents[2:], "active", run_jobs)

    assert state(second) == ("active", "")
    assert stories.progress(second) == ["active", "failed", "active", "active"]
    assert KnownBad.objects.count() == 0


def test_who_was_offline_is_taken_back_without_being_waited_for(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 4)
    (away, away_api) = agents[1]
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    stories.unheard(away, for_s=301)
    second = stories.offered(world, two, strategy=waves(50, 100))
    all_say(agents[:1], "failed", run_jobs)
    assert wanted(agents[:2]) == [(second.pk, "rollback")] * 2

    all_say(agents[:1], "rolled_back", run_jobs)

    assert state(second)[0] == "rolled_back"
    assert beat(away, away_api)["bundle_hash"] == first.bundle_hash
    assert report(away_api, away, "rolled_back").status_code == 200
    run_jobs()
    assert stories.progress(second) == ["rolled_back", "rolled_back", "pending", "pending"]


def test_a_wave_of_nobody_but_the_offline_is_passed_over(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 3)
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    stories.unheard(agents[1][0], for_s=301)
    second = stories.offered(world, two, strategy=waves(34, 67, 100))
    # Rounded up: two in the first wave, one in the second, and none is left for the third.
    assert list(second.agents.order_by("agent_id").values_list("wave", flat=True)) == [0, 0, 1]
    third_agent = agents[2:]

    all_say(agents[:1], "active", run_jobs)
    assert stories.progress(second) == ["active", "offered", "offered"]
    all_say(third_agent, "active", run_jobs)

    assert state(second) == ("active", "")


def test_late_joiners_wait_for_the_end_and_do_not_count(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100))
    early, early_api = world.agent(name="early")
    run_jobs()
    # What is current serves it meanwhile.
    assert stories.desired(early) == (first.pk, "activate")
    all_say(agents[:1], "active", run_jobs)
    assert second.agents.filter(agent=early).count() == 0

    all_say(agents[1:], "active", run_jobs)
    assert state(second) == ("active", "")
    later, later_api = world.agent(name="later")
    run_jobs()

    joined = [(early, early_api), (later, later_api)]
    assert wanted(joined) == [(second.pk, "activate")] * 2
    rows = second.agents.filter(counted=False).order_by("agent_id")
    assert list(rows.values_list("agent_id", "wave", "progress", "before_id")) == [
        (early.pk, 1, "offered", first.pk), (later.pk, 1, "offered", None),
    ]  # fmt: skip
    all_say(joined, "failed", run_jobs)
    assert (state(second), KnownBad.objects.count()) == (("active", ""), 0)
    # Rolled back by hand, they go along: the one that ran nothing before to what is restored.
    world.operator.api.post(world.path(rest=f"/deployments/{second.pk}/rollback"), {"reason": "slow"})
    assert {a["bundle_hash"] for a in assignments([*agents, *joined])} == {first.bundle_hash}


def test_late_joiners_never_see_what_failed(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100))
    late, _ = world.agent(name="late")
    run_jobs()
    all_say(agents[:1], "failed", run_jobs)
    later, _ = world.agent(name="later")
    run_jobs()

    all_say(agents[:1], "rolled_back", run_jobs)
    time_passes(run_jobs)

    assert state(second)[0] == "rolled_back"
    assert [stories.desired(agent) for agent in (late, later)] == [(first.pk, "activate")] * 2
    assert second.agents.filter(agent__in=[late, later]).count() == 0


def test_decommissioned_agents_are_not_waited_for_and_not_offered(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 6)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(34, 100))
    assert stories.progress(second) == ["offered"] * 3 + ["pending"] * 3
    all_say(agents[:2], "active", run_jobs)

    fleet.decommission(agents[5][0], actor=world.admin.actor)
    fleet.decommission(agents[2][0], actor=world.admin.actor)
    run_jobs()

    # The wave was waiting for the third alone.
    assert stories.progress(second)[3:5] == ["offered", "offered"]
    all_say(agents[3:4], "failed", run_jobs)
    assert state(second)[0] == "rolling_back"
    fleet.decommission(agents[3][0], actor=world.admin.actor)
    all_say([agents[0], agents[1], agents[4]], "rolled_back", run_jobs)
    assert state(second)[0] == "rolled_back"
    first.refresh_from_db()
    assert first.is_current
    assert agents[5][1].get(f"/api/v1/agents/{agents[5][0].pk}/deployment").status_code == 401


def test_when_all_of_a_wave_are_decommissioned_the_next_comes(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100))

    fleet.decommission(agents[0][0], actor=world.admin.actor)
    run_jobs()

    assert wanted(agents[1:]) == [(deployment.pk, "activate")]
    all_say(agents[1:], "active", run_jobs)
    assert state(deployment) == ("active", "")


def relabel(world: World, agent: Agent, **labels: str) -> None:
    fleet.update_agent(agent, {"labels": labels}, actor=world.operator.actor)


def test_the_target_is_that_of_the_start(world: World, run_jobs: Run) -> None:
    """Who loses the label stays in the rollout, who gets it joins late."""
    agents = [world.agent(name=f"edge-{number}", tier="edge") for number in range(4)]
    outside = world.agent(name="outside", tier="core")
    target = {"selector": {"tier": "edge"}}
    deployment = stories.offered(world, world.bundle(), target=target, strategy=waves(50, 100))

    relabel(world, agents[3][0], tier="core")
    relabel(world, outside[0], tier="edge")
    run_jobs()
    all_say(agents[:2], "active", run_jobs)
    assert wanted([*agents[2:], outside]) == [(deployment.pk, "activate")] * 2 + [(None, None)]
    all_say(agents[2:], "active", run_jobs)

    assert state(deployment) == ("active", "")
    assert wanted([outside]) == [(deployment.pk, "activate")]
    assert deployment.agents.get(agent=outside[0]).counted is False


def test_between_request_and_start_the_target_is_resolved_again(world: World, run_jobs: Run) -> None:
    staying, leaving = (world.agent(name=name, tier="edge") for name in ("staying", "leaving"))
    deployment = world.deployment(world.bundle(), target={"selector": {"tier": "edge"}}, strategy=waves(50, 100))
    assert deployment.target_count == 2
    relabel(world, leaving[0], tier="core")
    coming = world.agent(name="coming", tier="edge")

    run_jobs()

    assert wanted([staying, leaving, coming]) == [(deployment.pk, "activate"), (None, None), (None, None)]
    assert list(deployment.agents.order_by("agent_id").values_list("agent_id", "wave", "counted")) == [
        (staying[0].pk, 0, True), (coming[0].pk, 1, True),
    ]  # fmt: skip


# -- two pipelines --------------------------------------------------------------------------------------------------


def ids(agents: Sequence[tuple[Agent, Api]]) -> dict[str, Any]:
    return {"agents": [str(agent.pk) for agent, _ in agents]}


def trades(world: World, count: int) -> list[Any]:
    version = world.version(content=plan("trades"))
    return [
        world.bundle(name=f"trades-{number}", version=version, env={"NUMBER": str(number)}) for number in range(count)
    ]


@pytest.fixture
def two_at_once(world: World) -> World:
    world.dev.settings = {"max_in_flight_deployments": 2}
    world.dev.save(update_fields=["settings"])
    return world


def test_two_pipelines_roll_out_beside_each_other(two_at_once: World, run_jobs: Run) -> None:
    world = two_at_once
    agents = stories.fleet(world, 8)
    left, right = agents[:4], agents[4:]
    (trade,) = trades(world, 1)
    quotes = world.deployment(world.bundle(), target=ids(left), strategy=waves(50, 100))
    other = world.deployment(trade, target=ids(right), strategy=waves(50, 100))
    run_jobs()
    assert wanted(agents) == [
        *[(quotes.pk, "activate")] * 2, *[(None, None)] * 2, *[(other.pk, "activate")] * 2, *[(None, None)] * 2,
    ]  # fmt: skip

    all_say(right[:1], "failed", run_jobs)
    all_say(left[:2], "active", run_jobs)
    all_say(left[2:], "active", run_jobs)

    assert (state(quotes), quotes.is_current) == (("active", ""), True)
    assert state(other) == ("failed", "threshold")
    assert KnownBad.objects.get().config_hash == trade.config_hash
    assert wanted(left) == [(quotes.pk, "activate")] * 4


def test_a_take_over_waits_for_the_agents_and_gives_them_back(two_at_once: World, run_jobs: Run) -> None:
    world = two_at_once
    agents = stories.fleet(world, 4)
    left, right = agents[:2], agents[2:]
    trade = trades(world, 2)
    quotes = stories.offered(world, world.bundle(), target=ids(left))
    other = stories.active(world, trade[0], right, target=ids(right))

    taking = world.deployment(trade[1], take_over=True, strategy=waves(75, 100))
    run_jobs()
    assert state(taking) == ("approved", "")  # some of its agents are being deployed to
    all_say(left, "active", run_jobs)
    time_passes(run_jobs)
    assert state(taking) == ("deploying", "")
    assert wanted(agents) == [(taking.pk, "activate")] * 3 + [(other.pk, "activate")]
    all_say(left, "active", run_jobs)
    all_say(right[:1], "failed", run_jobs)

    assert state(taking)[0] == "rolling_back"
    assert taking.restores == other
    assert [a["bundle_deployment_id"] for a in assignments(agents)] == [quotes.pk, quotes.pk, other.pk, other.pk]
    all_say(agents[:3], "rolled_back", run_jobs)
    for deployment in (quotes, other):
        deployment.refresh_from_db()
        assert (deployment.status, deployment.is_current) == ("active", True)
    assert state(taking)[0] == "rolled_back"
    # They are the first pipeline's again: its next release finds them without taking over.
    again = world.bundle(name="again", version=quotes.config_bundle.version, env={"NUMBER": "9"})
    assert stories.offered(world, again, target=ids(left)).agents.count() == 2


def test_agents_taken_over_before_the_start_are_left_out(two_at_once: World, run_jobs: Run) -> None:
    world = two_at_once
    agents = stories.fleet(world, 3)
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    (trade,) = trades(world, 1)
    taking = world.deployment(trade, target=ids(agents[:1]), take_over=True)
    waiting = world.deployment(two)

    run_jobs()
    assert (state(taking)[0], state(waiting)[0]) == ("deploying", "approved")
    all_say(agents[:1], "active", run_jobs)
    time_passes(run_jobs)

    assert state(waiting)[0] == "deploying"
    assert wanted(agents) == [(taking.pk, "activate"), *[(waiting.pk, "activate")] * 2]
    assert (waiting.target_count, waiting.agents.count()) == (3, 2)


def test_a_later_wave_takes_no_agent_from_another_pipeline(two_at_once: World, run_jobs: Run) -> None:
    """It lost its label while it waited for its wave, and was taken over by another pipeline's release."""
    world = two_at_once
    agents = [world.agent(name=f"edge-{number}", tier="edge") for number in range(2)]
    target = {"selector": {"tier": "edge"}}
    quotes = stories.offered(world, world.bundle(), target=target, strategy=waves(50, 100))
    (trade,) = trades(world, 1)
    relabel(world, agents[1][0], tier="core")
    taking = stories.active(world, trade, agents[1:], target={"selector": {"tier": "core"}}, take_over=True)

    all_say(agents[:1], "active", run_jobs)
    time_passes(run_jobs)

    assert wanted(agents) == [(quotes.pk, "activate"), (taking.pk, "activate")]
    assert (state(quotes), stories.progress(quotes)) == (("active", ""), ["active", "pending"])


def test_a_later_wave_takes_no_late_joiner_from_another_pipeline(two_at_once: World, run_jobs: Run) -> None:
    world = two_at_once
    core = world.agent(name="core", tier="core")
    (trade,) = trades(world, 1)
    other = stories.active(world, trade, [core], target={"selector": {"tier": "core"}})
    agents = [world.agent(name=f"edge-{number}", tier="edge") for number in range(2)]
    quotes = stories.offered(world, world.bundle(), target={"selector": {"tier": "edge"}}, strategy=waves(50, 100))
    relabel(world, agents[1][0], tier="core")
    run_jobs()
    assert wanted(agents[1:]) == [(other.pk, "activate")]

    all_say(agents[:1], "active", run_jobs)

    assert wanted(agents) == [(quotes.pk, "activate"), (other.pk, "activate")]
    assert state(quotes) == ("active", "")
