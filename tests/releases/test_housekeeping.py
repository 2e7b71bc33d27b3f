"""What is deleted: old details of deployments, decommissioned agents, and expired or revoked credentials."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.artifacts import tasks as artifacts
from apps.fleet import tasks as fleet_tasks
from apps.fleet.models import Agent, AgentKey, Assignment, EnrollmentToken
from apps.fleet.services import agents as fleet
from apps.releases import tasks
from apps.releases.models import AgentReport, Deployment, DeploymentAgent, TimelineEntry
from apps.tenancy.models import AuditEvent
from tests.artifacts.incidents import upload
from tests.releases import stories
from tests.worlds import World, report

pytestmark = pytest.mark.django_db
YEARS = timedelta(days=1000)


def age(days: int, *rows: Any) -> None:
    """Make the deployments, their reports, their timelines and their agents' progress ``days`` days old."""
    moment = timezone.now() - timedelta(days=days)
    for deployment in rows:
        Deployment.objects.filter(pk=deployment.pk).update(created_at=moment)
        AgentReport.objects.filter(deployment=deployment).update(created_at=moment)
        TimelineEntry.objects.filter(deployment=deployment).update(created_at=moment)
        DeploymentAgent.objects.filter(deployment=deployment).update(updated_at=moment)


def kept(deployment: Deployment) -> tuple[int, int, bool]:
    """Return the number of deployment agents, the number of reports, and whether there is a timeline."""
    return deployment.agents.count(), deployment.reports.count(), deployment.timeline.exists()


def test_progress_and_timeline_of_superseded_deployment_are_deleted_after_one_year(world: World) -> None:
    agents = stories.fleet(world, 2)
    one, two = stories.bundles(world, 2)
    old, new = (stories.active(world, bundle, agents) for bundle in (one, two))
    age(364, old)
    age(364, new)

    tasks.delete_old_details()
    assert kept(old) == (2, 0, True)  # the reports are deleted after 90 days
    assert kept(new)[0] == 2

    age(366, old)
    age(366, new)
    tasks.delete_old_details()

    assert kept(old) == (0, 0, False)
    # The new deployment runs, so its agents, their reports and its timeline are kept, however old they are.
    assert kept(new) == (2, 2, True)
    old.refresh_from_db()
    assert old.status == "active"
    assert old.superseded_by_id == new.pk


def test_old_running_deployment_can_be_rolled_back(world: World, run_jobs: Any) -> None:
    agents = stories.fleet(world, 1)
    one, two = stories.bundles(world, 2)
    old, new = (stories.active(world, bundle, agents) for bundle in (one, two))
    age(1000, old, new)
    tasks.delete_old_details()

    response = world.operator.api.post(world.path(rest=f"/deployments/{new.pk}/rollback"), {"reason": "p99"})
    run_jobs()

    assert response.status_code in {200, 202}, response.json()
    assert stories.desired(agents[0][0]) == (new.pk, "rollback")
    report(agents[0][1], agents[0][0], "rolled_back")
    run_jobs()
    old.refresh_from_db()
    assert old.is_current


def test_details_of_deployment_in_flight_are_kept(world: World) -> None:
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    age(1000, deployment)
    parts, reports, has_timeline = kept(deployment)

    tasks.delete_old_details()

    assert kept(deployment) == (parts, reports, has_timeline) == (1, 0, True)


def test_old_report_on_current_offer_is_kept_and_can_be_repeated(world: World) -> None:
    agents = stories.fleet(world, 1)
    deployment = stories.active(world, world.bundle(), agents)
    age(1000, deployment)
    Assignment.objects.update(since=timezone.now() - YEARS - timedelta(days=1))
    tasks.delete_old_details()

    response = report(agents[0][1], agents[0][0], "active")

    assert (response.status_code, response.json()) == (200, {"accepted": True})


def test_decommissioned_agent_is_deleted_after_90_days_and_after_its_last_artifact(world: World) -> None:
    (stays, _), (left, left_api) = agents = stories.fleet(world, 2)
    deployment = stories.active(world, world.bundle(), agents)
    artifact = upload(left_api, left).json()["id"]
    fleet.decommission(left, actor=world.admin.actor)
    events = AuditEvent.objects.count()

    def delete_after(days: int) -> bool:
        Agent.objects.filter(pk=left.pk).update(decommissioned_at=timezone.now() - timedelta(days=days))
        age(days, deployment)
        tasks.delete_old_details()
        artifacts.retain()
        return Agent.objects.filter(pk=left.pk).exists()

    assert delete_after(89)
    assert deployment.agents.count() == 2
    assert delete_after(91)  # the agent's artifact has its own retention period and keeps the agent
    assert list(deployment.agents.values_list("agent_id", flat=True)) == [stays.pk]
    world.dev.settings = {"artifact_retention_days": 1}
    world.dev.save()
    from apps.artifacts.models import Artifact

    Artifact.objects.filter(pk=artifact).update(created_at=timezone.now() - timedelta(days=2))
    assert not delete_after(91)
    assert Agent.objects.filter(pk=stays.pk).exists()
    assert AuditEvent.objects.count() == events + 1  # the audit event of the expired artifact


def test_in_flight_deployment_keeps_its_decommissioned_agents(world: World) -> None:
    (left, _), *_ = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())
    Agent.objects.filter(pk=left.pk).update(decommissioned_at=timezone.now() - YEARS)

    tasks.delete_old_details()
    artifacts.retain()

    assert deployment.agents.count() == 2
    assert Agent.objects.filter(pk=left.pk).exists()


@pytest.mark.parametrize("column", ["expires_at", "revoked_at"])
def test_expired_or_revoked_agent_keys_and_enrollment_tokens_are_deleted_after_90_days(
    world: World, column: str
) -> None:
    (one, _), (two, _), (three, _) = stories.fleet(world, 3)
    now = timezone.now()
    for agent, days in ((one, 91), (two, 89)):
        AgentKey.objects.filter(agent=agent).update(**{column: now - timedelta(days=days)})
    world.enrollment_token()
    first, second = EnrollmentToken.objects.order_by("id")
    before = EnrollmentToken.objects.count()
    for token, days in ((first, 91), (second, 89)):
        EnrollmentToken.objects.filter(pk=token.pk).update(**{column: now - timedelta(days=days)})

    fleet_tasks.delete_old_credentials()

    assert set(AgentKey.objects.values_list("agent_id", flat=True)) == {two.pk, three.pk}
    assert not EnrollmentToken.objects.filter(pk=first.pk).exists()
    assert EnrollmentToken.objects.count() == before - 1
    assert Agent.objects.count() == 3
