"""Retries of deployments: new offers to agents, restarted timeouts, and refused retries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Assignment
from apps.releases.models import Deployment
from apps.releases.services import bundles as bundle_services
from apps.releases.services import deployment_jobs
from apps.tenancy.models import AuditEvent
from tests.releases import stories
from tests.releases.stories import waves
from tests.worlds import Api, World, plan, report

pytestmark = pytest.mark.django_db


def retry(api: Api, world: World, deployment: Deployment) -> Any:
    path = world.path(deployment.environment, f"/deployments/{deployment.pk}/retry")
    return api.post(path, {"reason": "the disk is free again"})


def refused(world: World, deployment: Deployment, code: str) -> None:
    deployment.refresh_from_db()
    before = (deployment.status, stories.progress(deployment), AuditEvent.objects.count())
    response = retry(world.operator.api, world, deployment)
    assert (response.status_code, response.json()["type"]) == (409, f"urn:byteor:problem:{code}")
    if code not in {"freeze_window", "in_flight_limit"}:
        assert deployment.status in response.json()["detail"]
    deployment.refresh_from_db()
    assert (deployment.status, stories.progress(deployment), AuditEvent.objects.count()) == before


def clear(world: World, deployment: Deployment) -> None:
    bundle_services.clear_known_bad(deployment.config_bundle, reason="it was the disk", actor=world.admin.actor)


def test_retry_offers_deploying_deployment_to_failed_agents_again(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 3)
    strategy = {"kind": "all_at_once", "failure_threshold_percent": 50, "auto_rollback": False}
    deployment = stories.offered(world, world.bundle(), strategy=strategy)
    (one, api), (two, two_api), _ = agents
    first = Assignment.objects.get(agent=one).since
    report(api, one, "failed", detail="no space")
    report(two_api, two, "active")
    run_jobs()

    response = retry(world.operator.api, world, deployment)

    assert (response.status_code, response.json()["status"]) == (200, "deploying")
    assert stories.progress(deployment) == ["offered", "active", "offered"]
    again = Assignment.objects.get(agent=one)
    assert first is not None
    assert again.since is not None
    assert (again.progress, again.since > first) == ("offered", True)
    for status in ("downloading", "activating", "active"):
        assert report(api, one, status).status_code == 200
    report(agents[2][1], agents[2][0], "active")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("active", "")
    entry = deployment.timeline.get(event="retry")
    assert (entry.detail["reason"], entry.detail["agents"]) == ("the disk is free again", 1)
    assert AuditEvent.objects.filter(action="deployment.retry").count() == 1


def test_retry_continues_waves_of_failed_deployment(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 4)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, auto_rollback=False))
    report(agents[0][1], agents[0][0], "failed", detail="no space")
    run_jobs()
    refused(world, deployment, "known_bad")
    assert stories.progress(deployment) == ["failed", "pending", "pending", "pending"]
    clear(world, deployment)

    assert retry(world.operator.api, world, deployment).json()["reason"] == ""
    run_jobs()
    assert stories.progress(deployment) == ["offered", "offered", "pending", "pending"]
    for agent, api in agents[:2]:
        assert report(api, agent, "active").status_code == 200
    run_jobs()
    for agent, api in agents[2:]:
        assert report(api, agent, "active").status_code == 200
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.is_current) == ("active", True)


def test_retry_continues_aborted_deployment(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())
    world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/abort"))
    assert stories.progress(deployment) == ["pending", "pending"]

    assert retry(world.operator.api, world, deployment).status_code == 200
    run_jobs()

    assert stories.progress(deployment) == ["offered", "offered"]
    for agent, api in agents:
        report(api, agent, "active")
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == "active"


def test_retry_of_timed_out_deployment_restarts_timeouts(world: World, run_jobs: Callable[[], int]) -> None:
    ((agent, _),) = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    stories.set_offered_ago(deployment, 601, agent)
    deployment_jobs.enqueue_rollout_step(deployment.pk)
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("failed", "timeout")
    clear(world, deployment)

    retry(world.operator.api, world, deployment)
    run_jobs()

    deployment.refresh_from_db()
    assert deployment.status == "deploying"


def test_retry_of_deploying_deployment_without_failed_agents_is_refused(world: World) -> None:
    stories.fleet(world, 1)
    refused(world, stories.offered(world, world.bundle()), "nothing_to_retry")


@pytest.mark.parametrize("status", ["pending_approval", "approved", "denied", "building", "rolling_back"])
def test_retry_is_refused_before_rollout_after_denial_and_during_rollback(world: World, status: str) -> None:
    stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())
    Deployment.objects.filter(pk=deployment.pk).update(status=status)
    refused(world, deployment, "illegal_transition")


def test_retry_is_refused_if_nothing_was_offered(world: World) -> None:
    stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())
    world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/abort"))
    refused(world, deployment, "never_offered")


def test_retry_is_refused_after_failed_rollback(world: World, run_jobs: Callable[[], int]) -> None:
    agents, _, (_, deployment) = stories.running(world, 1, 2)
    world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/rollback"), {"reason": "slow"})
    report(agents[0][1], agents[0][0], "failed")
    run_jobs()
    clear(world, deployment)
    refused(world, deployment, "was_rolled_back")


def test_retry_of_aborted_deployment_is_refused_in_freeze_window(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/abort"))
    now = timezone.now()
    window = {
        "start": (now - timedelta(hours=1)).isoformat(),
        "end": (now + timedelta(hours=1)).isoformat(),
        "time_zone": "UTC",
        "reason": "audit",
    }
    world.dev.settings = {"freeze_windows": [window]}
    world.dev.save()
    refused(world, deployment, "freeze_window")


def test_retry_of_aborted_deployment_is_refused_at_in_flight_limit_and_after_newer_deployment(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 1)
    first, second = stories.bundles(world, 2)
    deployment = stories.offered(world, first)
    world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/abort"))
    newer = stories.offered(world, second)
    refused(world, deployment, "in_flight_limit")
    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    newer.refresh_from_db()
    assert newer.status == "active"
    refused(world, deployment, "newer_deployment")


def test_retry_of_aborted_deployment_is_refused_while_another_rollout_uses_its_agents(
    world: World, run_jobs: Callable[[], int]
) -> None:
    environment = world.environment("dev", "wide", max_in_flight_deployments=3)
    stories.fleet(world, 1, environment)
    deployment = stories.offered(world, world.bundle(environment))
    world.operator.api.post(world.path(environment, f"/deployments/{deployment.pk}/abort"))
    trades = world.bundle(environment, "trades", version=world.version(environment, plan("trades")))
    stories.offered(world, trades, take_over=True)
    refused(world, deployment, "agents_busy")


def test_retry_of_aborted_deployment_restarts_timeouts_of_unfinished_agents(
    world: World, run_jobs: Callable[[], int]
) -> None:
    ((agent, api),) = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    report(api, agent, "downloading")
    world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/abort"))
    stories.set_offered_ago(deployment, 3600, agent)

    assert retry(world.operator.api, world, deployment).status_code == 200
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, stories.progress(deployment)) == ("deploying", ["downloading"])


def test_viewers_cannot_retry_deployments(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    assert retry(world.viewer.api, world, deployment).status_code == 403
