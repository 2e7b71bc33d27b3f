"""What agents say of their offers: noted under the lock of the agent's own row; the worker draws the conclusions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.fleet.models import Agent, Assignment
from apps.releases.models import AgentReport, Deployment
from apps.releases.services import assignments
from apps.releases.services.offers import enqueue_rollout_step
from apps.tenancy.models import Environment
from byteor_cloud.engine.machines import PROGRESS_RANK, AgentProgress, OfferAction
from byteor_cloud.errors import Conflict, NotFound


class LateReport(Conflict):
    """About an offer that is no longer desired, or one that is further on."""

    code = "late_report"


def report(
    *,
    agent: Agent,
    environment: Environment,
    deployment_id: UUID,
    status: AgentProgress,
    bundle_hash: str,
    detail: str = "",
    tuning: Any = None,
) -> None:
    """An agent's word on its offer. Locks only the agent's own row; the worker does the rest.

    Raises NotFound for another environment's deployment; LateReport, recorded all the same, for what is not desired
    any more or would move backwards.
    """
    deployment = Deployment.objects.filter(pk=deployment_id, environment=environment).first()
    if deployment is None:
        raise NotFound("There is no such deployment here.")
    with transaction.atomic():
        wanted = Assignment.objects.select_for_update(no_key=True).get(agent=agent)
        is_wanted = (wanted.deployment_id, wanted.bundle_hash) == (deployment.pk, bundle_hash)
        last_status = AgentProgress.ROLLED_BACK if wanted.action == OfferAction.ROLLBACK else AgentProgress.ACTIVE
        is_valid = is_wanted and status in {
            AgentProgress.DOWNLOADING,
            AgentProgress.ACTIVATING,
            AgentProgress.FAILED,
            last_status,
        }
        earlier_reports = AgentReport.objects.filter(
            deployment=deployment, agent=agent, bundle_hash=bundle_hash, accepted=True,
            created_at__gte=wanted.since or deployment.created_at,
        )  # fmt: skip
        if is_valid and earlier_reports.filter(status=status).exists():
            return
        accepted = is_valid and PROGRESS_RANK[status] > PROGRESS_RANK[AgentProgress(wanted.progress)]
        latest = {"bundle_hash": bundle_hash, "detail": detail}
        if accepted:
            AgentReport.objects.create(deployment=deployment, agent=agent, status=status, accepted=True, **latest)
            assignments.record_report(deployment, wanted, status, detail=detail, tuning=tuning)
            enqueue_rollout_step(deployment.pk)
        else:
            # An agent may repeat itself for ever, and vary what it says: one row holds the last and counts them.
            AgentReport.objects.update_or_create(
                deployment=deployment,
                agent=agent,
                status=status,
                accepted=False,
                defaults={**latest, "count": F("count") + 1, "last_at": timezone.now()},
                create_defaults=latest,
            )
    if not accepted:
        why = f"this offer is {wanted.progress} already" if is_wanted else "another offer is desired now"
        raise LateReport(f"Recorded, but {why}.")
