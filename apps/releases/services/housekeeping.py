"""Deletion of old reports, agent progress and timelines (see docs/tables.md). The deployments themselves are kept."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from apps.fleet.models import Assignment
from apps.releases.models import AgentReport, TimelineEntry
from apps.releases.services import assignments
from byteor.engine.machines import IN_FLIGHT, DeploymentStatus
from byteor_cloud.database.deletion import delete_in_batches

REPORTS_KEPT_FOR = timedelta(days=90)
DECOMMISSIONED_KEPT_FOR = timedelta(days=90)
DETAILS_KEPT_FOR = timedelta(days=365)
_OPEN = [DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT]


def _has_ended(prefix: str = "deployment__") -> Q:
    """Return the condition that a row's deployment is neither current, nor in flight, nor waiting for approval."""
    return ~Q(**{f"{prefix}status__in": _OPEN}) & Q(**{f"{prefix}is_current": False})


def _is_still_needed() -> Exists:
    """Return the condition that the assignment of a row's agent still refers to the row's deployment.

    Explanations and rollbacks need the rows of three deployments: the one that made the agent's offer, the one that
    built the offered bundle (another one in a rollback), and the one that failed last on the agent.
    """
    named = (
        Q(deployment_id=OuterRef("deployment_id"))
        | Q(bundle_deployment_id=OuterRef("deployment_id"))
        | Q(failed_deployment_id=OuterRef("deployment_id"))
    )
    return Exists(Assignment.objects.filter(named, agent_id=OuterRef("agent_id")))


def delete_old_details(now: datetime | None = None) -> int:
    """Delete old reports, and old progress and timeline entries of deployments that have ended and are not current.

    Reports and progress are kept while the agent's assignment refers to their deployment. Long-decommissioned agents
    are an exception: their old reports are always deleted, and their progress is deleted unless the deployment is in
    flight or waiting for approval. Returns the number of deleted reports, progress rows and timeline entries.
    """
    now = now or timezone.now()
    long_ago = Q(deployment__created_at__lt=now - DETAILS_KEPT_FOR)
    decommissioned = Q(agent__decommissioned_at__lt=now - DECOMMISSIONED_KEPT_FOR)
    closed = ~Q(deployment__status__in=_OPEN)
    unused = _has_ended() & ~_is_still_needed() & long_ago & Q(updated_at__lt=now - DETAILS_KEPT_FOR)
    reports = AgentReport.objects.filter(~_is_still_needed() | decommissioned, created_at__lt=now - REPORTS_KEPT_FOR)
    entries = TimelineEntry.objects.filter(_has_ended(), long_ago, created_at__lt=now - DETAILS_KEPT_FOR)
    return (
        delete_in_batches(reports)
        + assignments.delete_deployment_agents(unused)
        + assignments.delete_deployment_agents(decommissioned & closed)
        + delete_in_batches(entries)
    )
