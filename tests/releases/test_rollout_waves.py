"""Rollouts in waves: failure thresholds, timeouts, untouched agents, pauses between waves, and large fleets."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.releases.models import AgentReport, Deployment, KnownBad
from apps.releases.services import assignments, builds
from apps.tenancy.models import AuditEvent
from byteor.engine import rollout as planner
from tests.releases import stories
from tests.releases.stories import (
    Run,
    all_desired,
    events,
    report_from_all,
    run_sweep,
    send_heartbeat,
    state,
    stored_assignments,
    waves,
)
from tests.worlds import World, report

pytestmark = pytest.mark.django_db


def test_rollout_with_auto_rollback_stops_and_is_rolled_back_above_threshold(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 20)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    touched, others = agents[:10], agents[10:]
    beats_before = [send_heartbeat(*each) for each in others]
    assignments_before = stored_assignments(others)
    etags = [api.get(f"/api/v1/agents/{agent.pk}/deployment")["ETag"] for agent, api in others]
    second = stories.offered(world, two, strategy=waves(10, 50, 100, threshold=25))
    report_from_all(touched[:2], "active", run_jobs)
    assert stories.progress(second) == ["active"] * 2 + ["offered"] * 8 + ["pending"] * 10

    # Two failures of eight agents are 25 %, which is not more than the threshold.
    report_from_all(touched[2:4], "failed", run_jobs)
    report_from_all(touched[4:6], "active", run_jobs)
    report_from_all(touched[6:7], "downloading", run_jobs)
    assert state(second) == ("deploying", "")
    report_from_all(touched[7:8], "failed", run_jobs)

    assert state(second) == ("rolling_back", "threshold")
    assert (second.detail, second.restores, second.wave) == ("3 of 8 agents of wave 2 failed", first, 1)
    assert all_desired(touched) == [(second.pk, "rollback")] * 10
    assert {a["bundle_hash"] for a in stored_assignments(touched)} == {first.bundle_hash}
    run_sweep(run_jobs)
    report_from_all(touched, "rolled_back", run_jobs)
    run_sweep(run_jobs)
    first.refresh_from_db()
    assert (state(second), second.is_current, first.is_current) == (("rolled_back", "threshold"), False, True)
    assert events(second) == [
        "create", "build", "offer", "wave_started", "agents_failed", "fail", "roll_back", "restore",
    ]  # fmt: skip

    # The other agents were never offered the deployment.
    assert stories.progress(second) == ["rolled_back"] * 10 + ["pending"] * 10
    never = second.agents.filter(agent__in=[agent for agent, _ in others])
    assert set(never.values_list("action", "offered_at", "wave", "detail")) == {("activate", None, 2, "")}
    assert not AgentReport.objects.filter(deployment=second, agent__in=[agent for agent, _ in others]).exists()
    assert stored_assignments(others) == assignments_before
    assert [send_heartbeat(*each) for each in others] == beats_before
    for (agent, api), etag in zip(others, etags, strict=True):
        assert api.get(f"/api/v1/agents/{agent.pk}/deployment", If_None_Match=etag).status_code == 304

    # The configuration is known bad until it is cleared, even in a config bundle with another name.
    assert KnownBad.objects.get().config_hash == second.config_hash
    assert AuditEvent.objects.filter(action="config.bar").count() == 1
    again = world.bundle(name="the same", version=two.version, env={"NUMBER": "1"})
    assert again.config_hash == two.config_hash
    path, count = world.path(rest="/deployments"), Deployment.objects.count()
    for bundle in (two, again):
        body = {"config_bundle_id": str(bundle.pk), "target": {"all": True}}
        response = world.operator.api.post(path, body)
        assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:known_bad")
    assert Deployment.objects.count() == count
    cleared = world.operator.api.post(world.path(rest=f"/config-bundles/{two.pk}/clear"), {"reason": "disk was full"})
    assert cleared.json()["known_bad"] is False
    third = stories.offered(world, again, strategy=waves(10, 100))
    assert all_desired(agents[:3]) == [(third.pk, "activate")] * 2 + [(second.pk, "rollback")]


def test_rollout_without_auto_rollback_fails_above_threshold_and_is_not_rolled_back(
    world: World, run_jobs: Run
) -> None:
    agents = stories.fleet(world, 6)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100, auto_rollback=False))
    report_from_all(agents[:1], "active", run_jobs)

    report_from_all(agents[1:2], "failed", run_jobs)
    run_sweep(run_jobs)

    assert state(second) == ("failed", "threshold")
    # The agents that run the deployment or failed keep its offer. The agents that had not started should run what they
    # run now.
    assert all_desired(agents) == [(second.pk, "activate")] * 2 + [(first.pk, "activate")] * 4
    assert stories.progress(second) == ["active", "failed"] + ["pending"] * 4
    first.refresh_from_db()
    assert first.is_current
    assert KnownBad.objects.count() == 1


def test_threshold_applies_to_each_wave(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 8)
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100, threshold=25))

    for wave in (agents[:4], agents[4:]):
        report_from_all(wave[:1], "failed", run_jobs)
        report_from_all(wave[1:], "active", run_jobs)

    # Two of eight agents failed, one in each wave of four. In no wave did more than 25 % of the agents fail.
    assert state(second) == ("active", "")
    assert stories.progress(second) == ["failed", "active", "active", "active"] * 2
    assert KnownBad.objects.count() == 0


def test_rollback_starts_if_wave_completes_with_failures_above_threshold(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 4)
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100))

    # Both reports arrive before the worker runs a step, so the wave completes and exceeds the threshold in one step.
    report_from_all([agents[0]], "failed", lambda: 0)
    report_from_all([agents[1]], "active", run_jobs)

    assert state(second) == ("rolling_back", "threshold")
    assert report(agents[1][1], agents[1][0], "active").status_code == 409
    report_from_all(agents[:2], "rolled_back", run_jobs)
    assert state(second)[0] == "rolled_back"
    assert stories.progress(second) == ["rolled_back", "rolled_back", "pending", "pending"]


# -- time -----------------------------------------------------------------------------------------------------------


def test_rollout_pauses_between_waves_but_not_after_last_wave(
    world: World, run_jobs: Run, clock: stories.Clock
) -> None:
    agents = stories.fleet(world, 3)
    deployment = stories.offered(world, world.bundle(), strategy=waves(30, 60, 100, pause_s=300))
    clock.forward(seconds=100)
    report_from_all(agents[:1], "active", run_jobs)

    for wave, before in enumerate((["active"], ["active", "active"])):
        rest = ["pending"] * (3 - len(before))
        clock.forward(seconds=299)
        run_sweep(run_jobs)
        deployment.refresh_from_db()
        assert (deployment.wave, stories.progress(deployment)) == (wave, before + rest)
        clock.forward(seconds=1)
        run_sweep(run_jobs)
        deployment.refresh_from_db()
        assert (deployment.wave, stories.progress(deployment)) == (wave + 1, [*before, "offered", *rest[1:]])
        report_from_all(agents[wave + 1 : wave + 2], "active", run_jobs)

    # There is no pause after the last wave.
    assert state(deployment) == ("active", "")


def test_manual_pause_outlasts_pause_between_waves(world: World, run_jobs: Run, clock: stories.Clock) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, pause_s=60))
    report_from_all(agents[:1], "active", run_jobs)
    path = world.path(rest=f"/deployments/{deployment.pk}")
    assert world.operator.api.post(f"{path}/pause", {}).status_code == 200

    clock.forward(hours=5)
    run_sweep(run_jobs)
    assert stories.progress(deployment) == ["active", "pending"]
    assert world.operator.api.post(f"{path}/resume", {}).status_code == 200
    run_jobs()

    assert stories.progress(deployment) == ["active", "offered"]


def test_agents_that_time_out_are_tolerated_up_to_threshold(world: World, run_jobs: Run, clock: stories.Clock) -> None:
    agents = stories.fleet(world, 8)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, threshold=25))
    (silent, silent_api) = agents[0]
    report_from_all(agents[1:4], "active", run_jobs)
    clock.forward(seconds=599)
    run_sweep(run_jobs)
    assert stories.progress(deployment)[:5] == ["offered", "active", "active", "active", "pending"]

    clock.forward(seconds=1)
    run_sweep(run_jobs)

    assert stories.progress(deployment) == ["failed", "active", "active", "active"] + ["offered"] * 4
    assert deployment.agents.get(agent=silent).detail == "did not finish within 600 s"
    late = report(silent_api, silent, "active")
    assert (late.status_code, late.json()["type"]) == (409, "urn:byteor:problem:late_report")
    report_from_all(agents[4:], "active", run_jobs)
    assert state(deployment) == ("active", "")
    assert stories.progress(deployment)[0] == "failed"


def test_unfinished_agents_fail_rollout_and_silent_agents_fail_its_rollback(
    world: World, run_jobs: Run, clock: stories.Clock
) -> None:
    agents = stories.fleet(world, 8)
    one, two = stories.bundles(world, 2)
    first = stories.active(world, one, agents)
    second = stories.offered(world, two, strategy=waves(50, 100, threshold=25))
    report_from_all(agents[2:4], "active", run_jobs)

    clock.forward(seconds=600)
    run_sweep(run_jobs)

    assert state(second) == ("rolling_back", "timeout")
    assert second.detail == "2 of 4 agents of wave 1 failed; most recently, 2 agents did not finish within 600 s"
    assert all_desired(agents) == [(second.pk, "rollback")] * 4 + [(first.pk, "activate")] * 4
    report_from_all(agents[1:4], "rolled_back", run_jobs)
    clock.forward(seconds=599)
    run_sweep(run_jobs)
    assert state(second)[0] == "rolling_back"
    clock.forward(seconds=1)
    run_sweep(run_jobs)

    assert state(second) == ("failed", "rollback_failed")
    assert second.detail == f"1 agent did not roll back: {agents[0][0].pk}"
    assert stories.progress(second) == ["failed", *["rolled_back"] * 3, *["pending"] * 4]
    # All agents are assigned what they ran before. The silent agent gets that bundle when it is online again.
    assert {a["bundle_hash"] for a in stored_assignments(agents)} == {first.bundle_hash}
    first.refresh_from_db()
    assert first.is_current


def test_next_wave_starts_after_previous_wave(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 4)
    deployment = stories.offered(world, world.bundle(), strategy=waves(25, 50, 100, auto_rollback=False))
    assert stories.progress(deployment) == ["offered", "pending", "pending", "pending"]
    assert list(deployment.agents.order_by("agent_id").values_list("wave", flat=True)) == [0, 1, 2, 2]

    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.wave, stories.progress(deployment)) == (1, ["active", "offered", "pending", "pending"])
    assert stories.desired(agents[2][0]) == (None, None)

    report(agents[1][1], agents[1][0], "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.wave, stories.progress(deployment)) == (2, ["active", "active", "offered", "offered"])
    assert deployment.status == "deploying"

    for agent, api in agents[2:]:
        report(api, agent, "active")
    run_jobs()
    assert state(deployment) == ("active", "")


def test_next_wave_starts_after_pause(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, pause_s=300, auto_rollback=False))
    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.wave, deployment.wave_done_at is not None) == (0, True)

    Deployment.objects.update(wave_done_at=timezone.now() - timedelta(seconds=299))
    run_sweep(run_jobs)
    assert stories.progress(deployment) == ["active", "pending"]

    Deployment.objects.update(wave_done_at=timezone.now() - timedelta(seconds=300))
    run_sweep(run_jobs)
    deployment.refresh_from_db()
    assert (deployment.wave, deployment.wave_done_at) == (1, None)
    assert stories.progress(deployment) == ["active", "offered"]


def test_failed_wave_stops_rollout(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 4)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, threshold=49, auto_rollback=False))

    report(agents[0][1], agents[0][0], "active")
    report(agents[1][1], agents[1][0], "failed")
    run_jobs()

    assert state(deployment) == ("failed", "threshold")
    assert stories.progress(deployment) == ["active", "failed", "pending", "pending"]
    assert stories.desired(agents[3][0]) == (None, None)
    run_sweep(run_jobs)
    assert events(deployment) == ["create", "build", "offer", "agents_failed", "fail"]


@pytest.mark.parametrize("percents", [[100], [40, 100], [10, 60, 100]])
def test_large_fleet_is_enlisted_and_offered_in_several_steps(
    world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch, percents: list[int]
) -> None:
    monkeypatch.setattr(planner, "AGENTS_PER_STEP", 2)
    monkeypatch.setattr(assignments, "AGENTS_PER_STEP", 2)
    agents = stories.fleet(world, 5)
    stories.set_last_seen(agents[4][0], for_s=3600)
    deployment = world.deployment(world.bundle(), strategy=waves(*percents, auto_rollback=False))

    builds.build(str(deployment.pk))

    assert stories.progress(deployment) == (["offered", "pending"] if percents[0] == 10 else ["offered", "offered"])
    world.agent(name="joined meanwhile")
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.enlisting is None
    bounds = [math.ceil(5 * percent / 100) for percent in percents]
    parts = list(deployment.agents.order_by("agent_id").values_list("agent_id", "wave", "counted"))
    assert parts == [
        (agent.pk, sum(bound <= place for bound in bounds), place < 4) for place, (agent, _) in enumerate(agents)
    ]
    for _ in percents:
        for agent, api in agents[:4]:
            if stories.desired(agent)[0] == deployment.pk:
                report(api, agent, "active")
        run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, stories.progress(deployment)) == ("active", ["active"] * 4 + ["offered"] * 2)
