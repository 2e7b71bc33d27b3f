"""What happens to approvals, deployments and offers after a restore from a backup, and how offers are resumed.

The backup does not know what happened after it was made. A credential may have been spent, a deployment may have
finished, and agents may run something newer. Therefore releases from before the restore continue only if somebody
resumes, approves or repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Max
from django.utils import timezone

from apps.releases.models import Approval, Deployment
from apps.releases.services import approvals, assignments, deployment_jobs, deployments, rollbacks
from apps.releases.services.late_joiners import offer_to_all_late_joiners
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from apps.tenancy.services.state import lock_row
from byteor.engine.machines import ApprovalStatus, DeploymentStatus
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.errors import Conflict

REASON = "restored from a backup"
RESUME = "environment.resume_offers"


@dataclass(frozen=True, slots=True)
class HeldOffers:
    """The number of an environment's agents whose offers are held, and when the backup was made, if there are any."""

    agents: int
    backup_at: datetime | None


@transaction.atomic
def settle(*, backup_at: datetime, actor: Actor) -> dict[str, int]:
    """Stop all releases that were under way when the backup was made. Returns the number of changes by kind.

    Revokes approvals whose credentials are unspent and have not expired, aborts approved deployments that were not
    offered yet, pauses rollouts, and holds the offers of all agents. Pending approvals of break-glass deployments do
    not expire before ``approval_ttl_s`` has passed again.
    """
    now = timezone.now()
    unspent = Approval.objects.filter(
        status=ApprovalStatus.APPROVED, credential__isnull=False, used_at=None, expires_at__gt=now
    )
    revoked = [approvals.revoke(approval, actor=actor) for approval in without_large(unspent).order_by("pk")]
    waiting = Approval.objects.filter(status=ApprovalStatus.PENDING, break_glass=True)
    for deployment in Deployment.objects.filter(approval__in=waiting).select_related("approval").order_by("pk"):
        approval, until = deployment.approval, now + timedelta(seconds=deployment.policy.approval_ttl_s)
        if approval is not None and approval.expires_at < until:
            approval.expires_at = until
            approval.save(update_fields=["expires_at"])
            if deployment.break_glass is not None:
                deployment.break_glass = replace(deployment.break_glass, approve_by=until)
                deployment.save(update_fields=["break_glass"])
    not_offered = Deployment.objects.filter(status__in=[DeploymentStatus.APPROVED, DeploymentStatus.BUILDING])
    aborted = [deployments.abort(row, reason=REASON, actor=actor) for row in not_offered.order_by("pk")]
    under_way = Deployment.objects.filter(status=DeploymentStatus.DEPLOYING, paused_at=None)
    paused = [deployments.set_paused(row, paused=True, reason=REASON, actor=actor) for row in under_way.order_by("pk")]
    count = assignments.hold_all(backup_at)
    environments = Environment.objects.filter(pk__in=assignments.environments_with_held_offers())
    for environment in environments.select_related("project").order_by("pk"):
        deployment_jobs.enqueue_offer_after_hold(environment)
    return {
        "approvals_revoked": len(revoked),
        "deployments_aborted": len(aborted),
        "deployments_paused": len(paused),
        "offers_held": count,
    }


def read_held(environment: Environment) -> HeldOffers:
    """Return how many of the environment's offers have been held since a restore, and when the backup was made."""
    found = assignments.held(environment.pk).aggregate(agents=Count("pk"), backup_at=Max("held_backup_at"))
    return HeldOffers(**found)


@transaction.atomic
def resume_offers(environment: Environment, *, reason: str = "", actor: Actor) -> HeldOffers:
    """Let the environment's agents get the offers that have been held since a restore. Returns what is held now.

    Late joiners get their offers as well. Paused deployments stay paused. Break-glass deployments whose approval was
    denied, expired or revoked are rolled back, if possible. Raises Conflict if no offers are held.
    """
    locked = lock_row(environment, related=("project",))
    check_resume_offers(locked)
    unapproved = list(rollbacks.find_held_break_glass(locked.pk).values_list("pk", flat=True))
    count = assignments.resume(assignments.held(locked.pk))
    for deployment_id in unapproved:
        deployment_jobs.enqueue_break_glass_rollback(deployment_id)
    offer_to_all_late_joiners(locked)
    audit.record(
        RESUME,
        actor=actor,
        scope=locked,
        resource=("environment", locked.pk),
        changes={"reason": reason, "agents": count},
    )
    return read_held(locked)


def check_resume_offers(environment: Environment) -> None:
    """Raise Conflict if the environment has no held offers."""
    if not assignments.held(environment.pk).exists():
        raise Conflict("No offers are held in this environment.", code="offers.not_held")
