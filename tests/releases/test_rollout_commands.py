"""Pausing, resuming and aborting a rollout: who may do it, and in which statuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.fleet.models import Assignment
from apps.releases.models import Deployment, KnownBad
from apps.tenancy.models import AuditEvent
from tests.releases import stories
from tests.releases.stories import command, events, state, waves
from tests.worlds import World, report

pytestmark = pytest.mark.django_db


def test_pause_delays_next_wave(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, auto_rollback=False))

    paused = command(world.operator.api, world, deployment, "pause", reason="lunch")

    assert (paused.status_code, paused.json()["status"]) == (200, "deploying")
    assert paused.json()["paused_at"] is not None
    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    assert stories.progress(deployment) == ["active", "pending"]
    again = command(world.operator.api, world, deployment, "pause")
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:conflict")

    resumed = command(world.operator.api, world, deployment, "resume")
    assert (resumed.status_code, resumed.json()["paused_at"]) == (200, None)
    run_jobs()
    assert stories.progress(deployment) == ["active", "offered"]
    assert command(world.operator.api, world, deployment, "resume").status_code == 409
    assert events(deployment) == ["create", "build", "offer", "pause", "resume", "wave_started"]
    assert AuditEvent.objects.get(action="deployment.pause").changes == {"reason": "lunch"}
    assert AuditEvent.objects.filter(action__in=["deployment.pause", "deployment.resume"]).count() == 2


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_and_resume_are_refused_before_rollout(world: World, verb: str) -> None:
    stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())

    response = command(world.operator.api, world, deployment, verb)

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:conflict")
    assert events(deployment) == ["create"]


def test_viewers_cannot_pause_resume_abort_or_roll_back(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())

    for verb in ("pause", "resume", "abort", "rollback"):
        assert command(world.viewer.api, world, deployment, verb, reason="x").status_code == 403
    assert (state(deployment), events(deployment)) == (("deploying", ""), ["create", "build", "offer"])


def test_abort_withdraws_offers_that_agents_have_not_started(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), (first,) = stories.running(world, 3)
    second = stories.offered(world, two)
    report(agents[0][1], agents[0][0], "active")
    report(agents[1][1], agents[1][0], "downloading")

    response = command(world.operator.api, world, second, "abort", reason="wrong day")

    assert (response.status_code, response.json()["status"], response.json()["reason"], response.json()["detail"]) == (
        200, "failed", "aborted", "wrong day",
    )  # fmt: skip
    # The agent that runs the deployment keeps running it, and the agent that has started continues. The third agent has
    # not started, so it should run its earlier deployment.
    assert [stories.desired(agent) for agent, _ in agents] == [
        (second.pk, "activate"), (second.pk, "activate"), (first.pk, "activate"),
    ]  # fmt: skip
    restored = Assignment.objects.get(agent=agents[2][0])
    assert (restored.bundle_hash, restored.bundle_size, restored.progress, restored.since) == (
        first.bundle_hash, first.bundle_size, "active", first.agents.get(agent=agents[2][0]).offered_at,
    )  # fmt: skip
    assert stories.progress(second) == ["active", "downloading", "pending"]
    first.refresh_from_db()
    assert first.is_current
    assert KnownBad.objects.count() == 0
    assert events(second)[-1] == "abort"
    run_jobs()
    assert command(world.operator.api, world, second, "abort").status_code == 409


def test_deployment_can_be_aborted_before_build(world: World, run_jobs: Callable[[], int]) -> None:
    (agent, _), *_ = stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())

    assert command(world.operator.api, world, deployment, "abort").status_code == 200
    run_jobs()

    assert state(deployment) == ("failed", "aborted")
    assert stories.desired(agent) == (None, None)


def test_abort_of_deployment_waiting_for_approval_revokes_approval(world: World) -> None:
    stories.fleet(world, 1, world.prod)
    deployment = world.deployment(world.bundle(world.prod))

    assert command(world.operator.api, world, deployment, "abort").status_code == 200

    assert state(deployment) == ("failed", "aborted")
    assert deployment.approval is not None
    assert deployment.approval.status == "revoked"


@pytest.mark.parametrize("status", ["active", "denied"])
def test_finished_deployment_cannot_be_aborted(world: World, status: str) -> None:
    stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())
    Deployment.objects.filter(pk=deployment.pk).update(status=status)

    response = command(world.operator.api, world, deployment, "abort")

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:illegal_transition")
    assert status in response.json()["detail"]
    assert state(deployment)[0] == status
