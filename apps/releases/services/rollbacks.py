"""Rollbacks: each touched agent is offered its earlier bundle, or otherwise the restored deployment's bundle."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, Q, QuerySet

from apps.releases.models import Approval, Deployment, DeploymentAgent, KnownBad
from apps.releases.services import assignments, bundles, failures, wave_holds
from apps.releases.services.deployment_jobs import enqueue_rollout_step
from apps.releases.services.deployments import RELATED, WORKER, fail
from apps.releases.services.timeline import advance_deployment
from apps.tenancy.actors import Actor
from apps.tenancy.services.state import check_transition, lock_row
from byteor.engine.machines import DeploymentEvent, DeploymentStatus
from byteor_cloud.errors import Conflict

NO_TARGET = "The pipeline has no earlier deployment to roll back to."


def find_target(deployment: Deployment) -> Deployment | None:
    """Return the deployment to restore, or None. See ``find_targets``."""
    return find_targets(deployment).first()


def find_targets(deployment: Deployment) -> QuerySet[Deployment]:
    """Return the deployments that a rollback can restore, the best first.

    Each is active, of the same pipeline, and has another configuration. The current one comes first. The others follow,
    the most recently activated first. Deployments that ``rollback_candidates`` leaves out are never restored.
    """
    return (
        assignments.rollback_candidates(deployment.environment_id)
        .filter(pipeline=deployment.pipeline, status=DeploymentStatus.ACTIVE)
        .exclude(pk=deployment.pk)
        .exclude(config_hash=deployment.config_hash)  # a rollback removes this configuration
        .order_by("-is_current", "-activated_at")
    )


@transaction.atomic
def start(
    found: Deployment,
    *,
    reason: str,
    proofs: Collection[UUID] = (),
    skips_proof: bool = False,
    is_bad: bool = True,
    actor: Actor,
) -> Deployment:
    """Start a rollback. Raises Conflict as ``check_start`` does.

    If ``is_bad``, the configuration is marked as known bad. The audit event names the replays ``proofs``, if any. With
    ``skips_proof``, the audit event states that the requested proof was skipped.
    """
    environment = lock_row(found.environment, related=("project__organization",))
    deployment = lock_row(found, related=RELATED)
    target = check_start(deployment)
    failures.note_in_timeline(deployment)
    wave_holds.lift(deployment, actor=actor)
    deployment = advance_deployment(
        deployment,
        DeploymentEvent.ROLL_BACK,
        actor=actor,
        restores=target,
        rollback_reason=reason,
        paused_at=None,
        changes={
            "reason": reason,
            "restores": str(target.pk),
            **({"proofs": [str(each) for each in proofs]} if proofs else {}),
            **({"proceed": True} if skips_proof else {}),
        },
    )
    if is_bad:
        bundles.mark_known_bad(environment, deployment.config_hash, reason=f"rolled back: {reason}", actor=actor)
    assignments.offer_rollback(deployment, touched_agents(deployment), fallback=target)
    enqueue_rollout_step(deployment.pk)
    return deployment


def check_start(deployment: Deployment) -> Deployment:
    """Return the deployment that a rollback would restore. Raises Conflict if the rollback cannot start now."""
    if deployment.status == DeploymentStatus.ACTIVE and not deployment.is_current:
        detail = "Another deployment superseded this deployment. Roll back the other deployment instead."
        raise Conflict(detail, code="not_current")
    check_transition(deployment, DeploymentEvent.ROLL_BACK)
    if deployment.status == DeploymentStatus.FAILED and not touched_agents(deployment).exists():
        # A rollback would only make the configuration known bad, although it may run well on other agents.
        detail = "The deployment has failed, and no agent is assigned its bundle, so there is nothing to roll back."
        raise Conflict(detail, code="nothing_to_roll_back")
    target = find_target(deployment)
    if target is None:
        raise Conflict(NO_TARGET, code="nothing_to_roll_back_to")
    return target


def find_restored(deployment: Deployment, target: Deployment) -> list[Deployment]:
    """Return the deployments that a rollback would restore, without duplicates.

    The first is ``target``. The others are further deployments whose bundles would be offered to touched agents.
    """
    before_ids = touched_agents(deployment).order_by().values_list("before_id", flat=True).distinct()
    offered = assignments.find_restored(deployment, before_ids, fallback=target).values()
    return [target, *sorted(set(offered) - {target}, key=lambda each: each.pk)]


def start_if_possible(deployment: Deployment, *, reason: str, is_bad: bool = True, actor: Actor) -> bool:
    """Start a rollback if there are touched agents and a deployment to restore. Return whether it was started."""
    if find_target(deployment) is None or not touched_agents(deployment).exists():
        return False
    start(deployment, reason=reason, is_bad=is_bad, actor=actor)
    return True


def touched_agents(deployment: Deployment) -> QuerySet[DeploymentAgent]:
    """Return the enlisted agents whose current offer is the deployment's, or that should run its bundle.

    They include agents that the rollback of another deployment returned to this bundle, but not agents that another
    deployment has taken over.
    """
    return deployment.agents.filter(
        Q(agent__assignment__deployment_id=deployment.pk) | Q(agent__assignment__bundle_deployment_id=deployment.pk),
        offered_at__isnull=False,
        agent__decommissioned_at=None,
    )


def finish(deployment: Deployment, *, actor: Actor) -> Deployment | None:
    """Finish a rollback: set the status ``rolled_back``, make the restored deployment current, and return it.

    Return None if another deployment is current, or if the deployment to restore was deleted, is no longer active, or
    became known bad during the rollback. The caller has locked the environment.
    """
    advance_deployment(deployment, DeploymentEvent.RESTORE, actor=actor, is_current=False)
    others = Deployment.objects.filter(
        environment=deployment.environment, pipeline=deployment.pipeline, is_current=True
    )
    # Another deployment of the pipeline may be current, for example if this one never was.
    if deployment.restores is None or others.exists():
        return None
    restored = lock_row(deployment.restores, related=RELATED)
    is_bad = bundles.is_known_bad(restored.environment_id, restored.config_hash)
    if restored.status != DeploymentStatus.ACTIVE or is_bad:
        return None
    restored.is_current, restored.superseded_by = True, None
    restored.save(update_fields=["is_current", "superseded_by"])
    return restored


def find_unapproved_break_glass() -> QuerySet[Deployment]:
    """Return the unapproved break-glass deployments to roll back or stop: unfinished or current, and not known bad."""
    unfinished = [DeploymentStatus.APPROVED, DeploymentStatus.BUILDING, DeploymentStatus.DEPLOYING]
    return _unapproved_break_glass().filter(
        Q(status__in=unfinished) | Q(is_current=True, status=DeploymentStatus.ACTIVE)
    )


def find_held_break_glass(environment_id: UUID) -> QuerySet[Deployment]:
    """Return the unapproved break-glass deployments whose rollback waits because their offers are held."""
    held = assignments.held(environment_id)
    return _unapproved_break_glass().filter(
        Q(pk__in=held.values("deployment_id")) | Q(pk__in=held.values("bundle_deployment_id"))
    )


def _unapproved_break_glass() -> QuerySet[Deployment]:
    barred = KnownBad.objects.filter(environment=OuterRef("environment"), config_hash=OuterRef("config_hash"))
    return Deployment.objects.filter(assignments.UNAPPROVED_BREAK_GLASS).exclude(Exists(barred))


@transaction.atomic
def roll_back_break_glass(deployment_id: str) -> None:
    """Roll back or stop a break-glass deployment that was not approved.

    A deployment that has not finished fails if it cannot be rolled back. A current deployment that cannot be rolled
    back keeps running, because stopping it would be no safer, but its configuration becomes known bad.

    Does nothing while the deployment's offers are held after a restore, unless a person denied the approval after the
    restore. When the offers are resumed, the rollback is enqueued again.
    """
    found = Deployment.objects.select_related("environment", "approval").filter(pk=deployment_id).first()
    if found is None or found.break_glass is None or found.approval is None:
        return
    environment = lock_row(found.environment, related=("project__organization",))
    deployment = lock_row(found, related=RELATED)
    if _is_held(deployment, found.approval):
        return
    why = f"break-glass: the approval is {found.approval.status}"
    under_way = deployment.status == DeploymentStatus.DEPLOYING
    has_failed = deployment.status == DeploymentStatus.FAILED
    if under_way or has_failed or (deployment.status == DeploymentStatus.ACTIVE and deployment.is_current):
        if start_if_possible(deployment, reason=why, actor=WORKER) or has_failed:
            return
        bundles.mark_known_bad(environment, deployment.config_hash, reason=why, actor=WORKER)
    if under_way or deployment.status in {DeploymentStatus.APPROVED, DeploymentStatus.BUILDING}:
        assignments.withdraw(fail(deployment, f"approval_{found.approval.status}", why))


def _is_held(deployment: Deployment, approval: Approval) -> bool:
    """Return whether offers of the deployment are held after a restore, and nobody has denied the approval since."""
    backup_at = touched_agents(deployment).aggregate(at=Max("agent__assignment__held_backup_at"))["at"]
    if backup_at is None:
        return False
    # The restored database contains a decision after the backup's time only if it was made after the restore.
    return not approval.decisions.filter(decision="deny", created_at__gt=backup_at).exists()
