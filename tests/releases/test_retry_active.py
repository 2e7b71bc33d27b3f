"""Retries of active deployments and of listed agents: offers, refusals and race conditions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Assignment
from apps.fleet.services import agents as fleet_services
from apps.releases.models import Deployment, KnownBad
from apps.releases.services import bundles as bundle_services
from apps.releases.services import deployments, rollbacks
from apps.tenancy.models import AuditEvent
from byteor_cloud.errors import Conflict
from byteor_cloud.ids import uuid7
from tests.races import Race
from tests.releases import stories
from tests.releases.stories import Fleet, command, report_from_all, state, waves
from tests.worlds import World, report, run_jobs

pytestmark = pytest.mark.django_db
TOLERANT = {"kind": "all_at_once", "failure_threshold_percent": 60, "auto_rollback": False}


def partly_active(world: World, agents: Fleet, bundle: Any, *failed: int) -> Deployment:
    """Create an active deployment that failed on the agents with these numbers."""
    deployment = stories.offered(world, bundle, strategy=TOLERANT)
    for number, (agent, api) in enumerate(agents):
        report(api, agent, "failed" if number in failed else "active", detail=f"exit {number}")
    run_jobs()
    assert (*state(deployment), deployment.is_current) == ("active", "", True)
    return deployment


def retry(world: World, deployment: Deployment, *agents: Any) -> Any:
    body = {"reason": "the disk is free again", **({"agents": [str(pk) for pk in agents]} if agents else {})}
    return command(world.operator.api, world, deployment, "retry", **body)


def check_refused(world: World, deployment: Deployment, code: str, *agents: Any, status: int = 409) -> Any:
    deployment.refresh_from_db()
    before = (deployment.status, stories.progress(deployment), stories.events(deployment), AuditEvent.objects.count())
    response = retry(world, deployment, *agents)
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}")
    deployment.refresh_from_db()
    after = (deployment.status, stories.progress(deployment), stories.events(deployment), AuditEvent.objects.count())
    assert after == before
    return response.json()


def test_retry_offers_active_deployment_to_failed_agents_again(world: World) -> None:
    agents = stories.fleet(world, 4)
    deployment = partly_active(world, agents, world.bundle(), 1, 2)
    first = Assignment.objects.get(agent=agents[1][0]).since

    response = retry(world, deployment)

    assert (response.status_code, response.json()["status"], response.json()["is_current"]) == (200, "active", True)
    assert stories.progress(deployment) == ["active", "offered", "offered", "active"]
    again = Assignment.objects.get(agent=agents[1][0])
    assert (again.deployment_id, again.action, again.progress) == (deployment.pk, "activate", "offered")
    assert again.since is not None
    assert first is not None
    assert again.since > first
    event = AuditEvent.objects.get(action="deployment.retry")
    assert event.changes == {"status": ["active", "active"], "reason": "the disk is free again", "agents": 2}
    assert stories.events(deployment)[-1] == "retry"

    # One agent succeeds now and one fails again. The status of the deployment does not change.
    for status in ("downloading", "activating", "active"):
        assert report(agents[1][1], agents[1][0], status).status_code == 200
    report(agents[2][1], agents[2][0], "failed", detail="exit 2")
    stories.run_sweep(run_jobs)
    assert state(deployment) == ("active", "")
    shown = world.viewer.api.get(world.path(rest=f"/deployments/{deployment.pk}")).json()
    assert (shown["progress"]["active"], shown["progress"]["failed"], shown["is_current"]) == (3, 1, True)
    assert retry(world, deployment).status_code == 200
    report(agents[2][1], agents[2][0], "active")
    check_refused(world, deployment, "nothing_to_retry")


def test_retry_can_be_limited_to_listed_agents(world: World) -> None:
    agents = stories.fleet(world, 4)
    deployment = partly_active(world, agents, world.bundle(), 0, 1)
    ids = [agent.pk for agent, _ in agents]

    assert retry(world, deployment, ids[1], ids[1]).status_code == 200

    assert stories.progress(deployment) == ["failed", "offered", "active", "active"]
    assert deployment.timeline.get(event="retry").detail["agents"] == 1
    fleet_services.set_drained(agents[0][0], drained=True, reason="", actor=world.operator.actor)
    for pk in (ids[0], ids[1], ids[2]):  # a drained agent, a retried agent and an active agent
        assert str(pk) in check_refused(world, deployment, "not_failed", pk)["detail"]
    stranger, _ = world.agent(world.prod)
    for pk in (stranger.pk, uuid7()):
        problem = check_refused(world, deployment, "invalid", ids[0], pk, status=400)
        assert [error["pointer"] for error in problem["errors"]] == ["/agents"]
        assert str(pk) in problem["detail"]
    for wrong, pointer in (([], "/agents"), (["x"], "/agents/0"), ("x", "/agents")):
        response = command(world.operator.api, world, deployment, "retry", agents=wrong)
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, pointer)


def test_partial_retry_of_failed_deployment_must_respect_threshold(world: World) -> None:
    agents = stories.fleet(world, 4)
    strategy = waves(100, threshold=25, auto_rollback=False)
    deployment = stories.offered(world, world.bundle(), strategy=strategy)
    for agent, api in agents[:3]:
        report(api, agent, "failed")
    run_jobs()
    assert state(deployment) == ("failed", "threshold")
    bundle_services.clear_known_bad(deployment.config_bundle, reason="it was the disk", actor=world.admin.actor)
    ids = [agent.pk for agent, _ in agents]
    check_refused(world, deployment, "others_failed", ids[0])

    assert retry(world, deployment, *ids[:2]).json()["status"] == "deploying"

    run_jobs()
    report_from_all([*agents[:2], agents[3]], "active", run_jobs)
    assert (state(deployment), stories.progress(deployment)) == (
        ("active", ""), ["active", "active", "failed", "active"],
    )  # fmt: skip


def test_retry_of_active_deployment_that_cannot_be_offered_is_refused(world: World) -> None:
    agents = stories.fleet(world, 3)
    one, two = stories.bundles(world, 2)
    deployment = partly_active(world, agents, one, 0)
    stories.allow_in_flight(world, 1)
    bad = KnownBad.objects.create(environment=world.dev, config_hash=deployment.config_hash, reason="it fails")
    check_refused(world, deployment, "known_bad")
    check_refused(world, deployment, "known_bad", agents[0][0].pk)
    bad.delete()
    now = timezone.now()
    window = {"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(hours=1)).isoformat()}
    world.dev.settings = {"freeze_windows": [{**window, "time_zone": "UTC", "reason": "audit"}]}
    world.dev.save()
    check_refused(world, deployment, "freeze_window")
    world.dev.settings = {}
    world.dev.save()
    assert world.viewer.api.post(world.path(rest=f"/deployments/{deployment.pk}/retry")).status_code == 403

    newer = stories.offered(world, two, strategy=waves(50, 100))
    check_refused(world, deployment, "agents_busy")
    for half in (agents[:2], agents[2:]):
        report_from_all(half, "active", run_jobs)
    assert state(newer) == ("active", "")
    check_refused(world, deployment, "not_current")


# -- races ----------------------------------------------------------------------------------------------------------


def test_concurrent_retry_and_rollback_end_in_rollback(world: World, concurrently: Race) -> None:
    agents, (_, two), (first,) = stories.running(world, 3)
    deployment = partly_active(world, agents, two, 0)

    retried, rolled_back = concurrently(
        lambda: deployments.retry(Deployment.objects.get(pk=deployment.pk), actor=world.operator.actor),
        lambda: rollbacks.start(Deployment.objects.get(pk=deployment.pk), reason="latency", actor=world.operator.actor),
    )

    # If the retry is first, both succeed. If the rollback is first, the retry is refused.
    assert isinstance(rolled_back, Deployment)
    assert isinstance(retried, Deployment | Conflict)
    events = stories.events(deployment)
    assert ("retry" in events) is isinstance(retried, Deployment)
    assert (state(deployment)[0], events[-1]) == ("rolling_back", "roll_back")
    assert stories.all_desired(agents) == [(deployment.pk, "rollback")] * 3
    report_from_all(agents, "rolled_back", run_jobs)
    first.refresh_from_db()
    assert (state(deployment)[0], first.is_current) == ("rolled_back", True)


def test_retry_concurrent_with_report_misses_no_failure(world: World, concurrently: Race) -> None:
    agents = stories.fleet(world, 3)
    deployment = partly_active(world, agents, world.bundle(), 0)
    retry(world, deployment)
    one, api = agents[0]

    reported, retried = concurrently(
        lambda: report(api, one, "failed", detail="exit 9"),
        lambda: deployments.retry(Deployment.objects.get(pk=deployment.pk), actor=world.operator.actor),
    )

    assert reported.status_code == 200
    part = deployment.agents.get(agent=one)
    assert part.failures.get().detail == "exit 9"
    if isinstance(retried, Deployment):  # the report was recorded before the retry
        assert part.progress == "offered"
    else:
        assert (retried.reason, part.progress) == ("nothing_to_retry", "failed")
        assert retry(world, deployment).status_code == 200
    assert Assignment.objects.get(agent=one).progress == "offered"


def test_concurrent_retries_make_one_offer(world: World, concurrently: Race) -> None:
    agents = stories.fleet(world, 3)
    deployment = partly_active(world, agents, world.bundle(), 0)

    def again() -> Deployment:
        return deployments.retry(
            Deployment.objects.get(pk=deployment.pk), agents=[agents[0][0].pk], actor=world.operator.actor
        )

    results = concurrently(again, again)

    (refusal,) = [result for result in results if isinstance(result, Conflict)]
    assert refusal.reason == "not_failed"
    assert stories.events(deployment).count("retry") == 1
    assert Assignment.objects.get(agent=agents[0][0]).progress == "offered"


def test_later_rollback_includes_retried_agents(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), (first,) = stories.running(world, 3)
    deployment = partly_active(world, agents, two, 0)
    retry(world, deployment)

    assert stories.roll_back(world, deployment).status_code == 200

    assert [Assignment.objects.get(agent=agent).bundle_deployment_id for agent, _ in agents] == [first.pk] * 3
    report_from_all(agents, "rolled_back", run_jobs)
    assert state(deployment)[0] == "rolled_back"
