"""Agents' reports on their offers. The worker acts on them later.

A report takes exclusive locks only on its agent's rows. It enqueues the rollout step last, because other reports on the
deployment may then wait until its transaction ends.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.fleet.models import Assignment
from apps.fleet.services import heartbeats
from apps.releases.models import AgentReport, Deployment
from apps.releases.services import assignments
from apps.releases.services.deployment_jobs import enqueue_rollout_step
from apps.tenancy.services.state import keep_environments
from byteor.engine.machines import PROGRESS_RANK, AgentProgress, OfferAction
from byteor_cloud.errors import Conflict, NotFound


class LateReport(Conflict):
    """The report is not about the current offer, or its status cannot follow the agent's progress on that offer."""

    code = "late_report"


def report(
    *,
    agent_id: UUID,
    environment_id: UUID,
    deployment_id: UUID,
    status: AgentProgress,
    bundle_hash: str,
    detail: str = "",
    tuning: Any = None,
    boot_id: str | None = None,
) -> None:
    """Record an agent's report on its offer and enqueue a rollout step. Ignore the repetition of an accepted report.

    Raises NotFound if the environment has no such deployment or the agent was deleted. Raises LateReport, after
    recording the report, if this is not the agent's current offer or the status cannot follow the agent's progress.
    """
    deployment = Deployment.objects.filter(pk=deployment_id, environment_id=environment_id).first()
    if deployment is None:
        raise NotFound("This environment has no such deployment.")
    heartbeats.note_boot(agent_id, boot_id)
    with transaction.atomic():
        keep_environments(environment_id)
        assignment = Assignment.objects.select_for_update(no_key=True).filter(agent_id=agent_id).first()
        if assignment is None:
            raise NotFound("The agent has been deleted.")
        is_current_offer = (assignment.deployment_id, assignment.bundle_hash) == (deployment.pk, bundle_hash)
        last_status = AgentProgress.ROLLED_BACK if assignment.action == OfferAction.ROLLBACK else AgentProgress.ACTIVE
        is_valid = is_current_offer and status in {
            AgentProgress.DOWNLOADING,
            AgentProgress.ACTIVATING,
            AgentProgress.FAILED,
            last_status,
        }
        earlier_reports = AgentReport.objects.filter(
            deployment=deployment, agent_id=agent_id, bundle_hash=bundle_hash, accepted=True,
            created_at__gte=assignment.since or deployment.created_at,
        )  # fmt: skip
        if is_valid and earlier_reports.filter(status=status).exists():
            return
        accepted = is_valid and PROGRESS_RANK[status] > PROGRESS_RANK[AgentProgress(assignment.progress)]
        latest = {"bundle_hash": bundle_hash, "detail": detail}
        if accepted:
            AgentReport.objects.create(deployment=deployment, agent_id=agent_id, status=status, accepted=True, **latest)
            assignments.record_report(deployment, assignment, status, detail=detail, tuning=tuning)
            enqueue_rollout_step(deployment.pk)
        else:
            # An agent may repeat late reports indefinitely. For each status, one row counts them and stores the last.
            AgentReport.objects.update_or_create(
                deployment=deployment,
                agent_id=agent_id,
                status=status,
                accepted=False,
                defaults={**latest, "count": F("count") + 1, "last_at": timezone.now()},
                create_defaults=latest,
            )
    if not accepted:
        transition = f"the status {status} cannot follow {assignment.progress}"
        why = transition if is_current_offer else "this is not the agent's current offer"
        raise LateReport(f"The report was recorded but has no effect, because {why}.")
