"""Rollouts, most with the strategy ``all_at_once``: counted agents, thresholds, timeouts, and known bad configurations.

Also which deployment is current, and the list of a deployment's agents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.fleet.models import Assignment
from apps.releases.models import KnownBad
from apps.releases.services import assignments, rollout_steps
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud.storage import blobs
from tests.releases import stories
from tests.releases.stories import command, events, run_sweep, state, waves
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db
LENIENT = {"kind": "all_at_once", "failure_threshold_percent": 50, "auto_rollback": False}


def test_all_at_once_rollout_waits_for_all_counted_agents(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 3)
    deployment = stories.offered(world, world.bundle())
    assert stories.progress(deployment) == ["offered"] * 3

    for agent, api in agents[:2]:
        report(api, agent, "active")
    run_jobs()
    assert state(deployment) == ("deploying", "")
    assert deployment.is_current is False
    report(agents[2][1], agents[2][0], "active")
    run_jobs()

    assert state(deployment) == ("active", "")
    assert deployment.is_current
    assert events(deployment) == ["create", "build", "offer", "activate"]
    body = world.viewer.api.get(world.path(rest=f"/deployments/{deployment.pk}")).json()
    assert body["progress"] == {
        "total": 3, "pending": 0, "offered": 0, "downloading": 0, "activating": 0, "active": 3, "failed": 0,
        "rolled_back": 0,
    }  # fmt: skip
    timeline = world.viewer.api.get(world.path(rest=f"/deployments/{deployment.pk}/timeline")).json()["results"]
    assert [entry["event"] for entry in timeline] == ["activate", "offer", "build", "create"]


def test_next_deployment_of_pipeline_supersedes_current_one(world: World) -> None:
    agents, (_, two), (first,) = stories.running(world, 1)

    second = stories.active(world, two, agents)

    first.refresh_from_db()
    assert (first.status, first.is_current, first.superseded_by) == ("active", False, second)
    assert (second.is_current, second.superseded_by) == (True, None)


def test_two_pipelines_have_one_current_deployment_each(world: World) -> None:
    agents = stories.fleet(world, 2)
    first = stories.active(world, world.bundle(), agents[:1], target={"agents": [str(agents[0][0].pk)]})
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))

    second = stories.active(world, trades, agents[1:], target={"agents": [str(agents[1][0].pk)]})

    first.refresh_from_db()
    assert (first.is_current, second.is_current, first.superseded_by) == (True, True, None)


def test_one_failure_exceeds_threshold_of_zero(world: World, run_jobs: Callable[[], int]) -> None:
    (one, one_api), (two, two_api) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())

    report(one_api, one, "failed", detail="no port")
    run_jobs()

    assert state(deployment) == ("failed", "threshold")
    assert deployment.detail == "1 of 2 agents of wave 1 failed"
    assert KnownBad.objects.get().config_hash == deployment.config_hash
    # The second agent had not started its offer. The offer is withdrawn, so the agent cannot start it later.
    assert stories.desired(two) == (None, None)
    assert two_api.get(f"/api/v1/agents/{two.pk}/deployment").json() == {"desired": None}
    assert stories.progress(deployment) == ["failed", "pending"]


def test_failures_up_to_threshold_are_tolerated(world: World, run_jobs: Callable[[], int]) -> None:
    (one, one_api), (two, two_api) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=LENIENT)

    report(one_api, one, "failed")
    run_jobs()
    assert state(deployment) == ("deploying", "")
    report(two_api, two, "active")
    run_jobs()

    assert state(deployment) == ("active", "")
    assert KnownBad.objects.count() == 0


def test_unfinished_agent_counts_as_failed_after_timeout(world: World, run_jobs: Callable[[], int]) -> None:
    environment = world.environment("dev", "quick", agent_timeout_s=60)
    (one, one_api), (two, two_api) = stories.fleet(world, 2, environment)
    deployment = stories.offered(world, world.bundle(environment))
    report(one_api, one, "active")
    report(two_api, two, "downloading")
    stories.set_offered_ago(deployment, 59, two)
    run_sweep(run_jobs)
    assert state(deployment) == ("deploying", "")

    stories.set_offered_ago(deployment, 60, two)
    run_sweep(run_jobs)

    assert state(deployment) == ("failed", "timeout")
    assert deployment.detail == "1 of 2 agents of wave 1 failed; most recently, 1 agent did not finish within 60 s"
    assert stories.progress(deployment) == ["active", "failed"]
    failed = Assignment.objects.get(agent=two)
    assert (failed.progress, failed.failed_deployment_id, failed.failed_bundle_hash, failed.failed_detail) == (
        "failed", deployment.pk, deployment.bundle_hash, "did not finish within 60 s",
    )  # fmt: skip
    assert report(two_api, two, "active").status_code == 409
    assert KnownBad.objects.count() == 1


def test_report_during_rollout_step_prevents_agent_timeout(
    world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    stories.set_offered_ago(deployment, 10_000, agent)
    waits = assignments.lock_assignments

    def report_first(agent_ids: Any) -> None:
        assert report(api, agent, "active").status_code == 200
        waits(agent_ids)

    monkeypatch.setattr(assignments, "lock_assignments", report_first)
    rollout_steps.run_step(str(deployment.pk))

    assert state(deployment) == ("active", "")
    assert stories.progress(deployment) == ["active"]


def test_timeouts_up_to_threshold_are_tolerated(world: World, run_jobs: Callable[[], int]) -> None:
    (one, one_api), (two, _) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=LENIENT)
    report(one_api, one, "active")
    stories.set_offered_ago(deployment, 600, two)

    run_sweep(run_jobs)

    assert state(deployment) == ("active", "")
    assert stories.progress(deployment) == ["active", "failed"]


def test_agents_offline_at_start_do_not_count_if_other_agents_are_online(
    world: World, run_jobs: Callable[[], int]
) -> None:
    (one, one_api), (away, away_api) = stories.fleet(world, 2)
    stories.set_last_seen(away, for_s=10 * 30 + 1)
    deployment = stories.offered(world, world.bundle())

    report(one_api, one, "active")
    run_jobs()

    assert state(deployment) == ("active", "")
    assert list(deployment.agents.order_by("agent_id").values_list("counted", flat=True)) == [True, False]
    # The offline agent also gets the offer, but no timeout applies to it.
    stories.set_offered_ago(deployment, 10_000, away)
    sweep()
    assert report(away_api, away, "active").status_code == 200
    run_jobs()
    assert (state(deployment), stories.progress(deployment)) == (("active", ""), ["active", "active"])


def test_stale_agent_counts_toward_thresholds(world: World) -> None:
    _, (stale, _) = stories.fleet(world, 2)
    stories.set_last_seen(stale, for_s=10 * 30 - 5)

    deployment = stories.offered(world, world.bundle())

    assert list(deployment.agents.values_list("counted", flat=True)) == [True, True]


def test_all_agents_count_toward_thresholds_if_all_are_offline(world: World, run_jobs: Callable[[], int]) -> None:
    (away, api), *_ = stories.fleet(world, 1)
    stories.set_last_seen(away, for_s=10_000)
    deployment = stories.offered(world, world.bundle())
    run_jobs()
    assert state(deployment) == ("deploying", "")

    report(api, away, "active")
    run_jobs()

    assert state(deployment) == ("active", "")


def test_rollout_step_of_active_deployment_without_new_failures_records_nothing(world: World) -> None:
    deployment = stories.active(world, world.bundle(), stories.fleet(world, 1))
    before = events(deployment), AuditEvent.objects.count()

    for _ in range(3):
        rollout_steps.run_step(str(deployment.pk))

    assert (events(deployment), AuditEvent.objects.count()) == before


def test_agents_of_deployment_are_paged_and_can_be_filtered(world: World) -> None:
    agents = stories.fleet(world, 3)
    deployment = stories.offered(world, world.bundle(), strategy=waves(34, 100, auto_rollback=False))
    path = world.path(rest=f"/deployments/{deployment.pk}/agents")

    names, url = [], f"{path}?limit=2"
    while url:
        page = world.viewer.api.get(url).json()
        names.append([row["agent_name"] for row in page["results"]])
        url = page["next"]

    assert names == [["agent-2", "agent-1"], ["agent-0"]]
    waiting = world.viewer.api.get(f"{path}?progress=pending").json()["results"]
    assert [row["agent_id"] for row in waiting] == [str(agents[2][0].pk)]
    assert len(world.viewer.api.get(f"{path}?wave=0").json()["results"]) == 2
    assert world.viewer.api.get(world.path(world.staging, f"/deployments/{deployment.pk}/agents")).status_code == 404


def test_deployment_keeps_agent_timeout_from_its_creation(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, _), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    Environment.objects.filter(pk=world.dev.pk).update(settings={"agent_timeout_s": 1})
    stories.set_offered_ago(deployment, 599, agent)

    run_sweep(run_jobs)

    assert state(deployment) == ("deploying", "")


def test_rollout_stops_when_configuration_becomes_known_bad(world: World, run_jobs: Callable[[], int]) -> None:
    """The configuration of an active deployment is deployed again. Then the active deployment is rolled back."""
    agents, (_, two), (first, second) = stories.running(world, 2, 2)
    again = stories.offered(world, two, strategy=waves(50, 100, auto_rollback=False))

    assert command(world.operator.api, world, second, "rollback", reason="latency").status_code == 200
    retried = command(world.operator.api, world, again, "retry")
    assert (retried.status_code, retried.json()["type"]) == (409, "urn:byteor:problem:known_bad")
    assert report(agents[0][1], agents[0][0], "active").status_code == 200
    run_jobs()

    again.refresh_from_db()
    assert (again.status, again.reason) == ("failed", "known_bad")
    assert stories.progress(again) == ["active", "pending"]
    assert stories.desired(agents[1][0]) == (second.pk, "rollback")
    assert Assignment.objects.get(agent=agents[1][0]).bundle_hash == first.bundle_hash


def test_deployment_fails_when_configuration_becomes_known_bad_during_build(
    world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    agents, (_, two), (first, second) = stories.running(world, 1, 2)
    again = world.deployment(two)
    put = blobs.put

    def slowly(*content: Any) -> None:
        put(*content)
        assert command(world.operator.api, world, second, "rollback", reason="latency").status_code == 200

    monkeypatch.setattr(blobs, "put", slowly)
    run_jobs()

    assert state(again) == ("failed", "known_bad")
    assert (events(again)[-1], again.agents.count()) == ("fail", 0)
    assert stories.desired(agents[0][0]) == (second.pk, "rollback")
    assert Assignment.objects.get(agent=agents[0][0]).bundle_hash == first.bundle_hash
