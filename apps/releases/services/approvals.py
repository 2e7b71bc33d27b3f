"""People's consent: asked for, decided, revoked, expired; the credential that an approval issues."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, User
from apps.tenancy.services import signing_keys
from apps.tenancy.state import advance, lock
from byteor_cloud.engine.delivery import credential
from byteor_cloud.engine.machines import ApprovalEvent, ApprovalStatus, DeploymentEvent, DeploymentStatus
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput
from byteor_cloud.jobs import enqueue


def request_approval(
    *,
    environment: Environment,
    policy: Mapping[str, Any],
    spec_hash: str,
    config_hash: str,
    target: Any,
    strategy: Any,
    capabilities: list[str],
    actor: Actor,
) -> Approval:
    """Ask for consent to exactly this; call it in the transaction that creates what needs it."""
    approval = Approval.objects.create(
        environment=environment,
        requester_id=actor.user_id,
        requested_by=actor.display,
        spec_hash=spec_hash,
        config_hash=config_hash,
        target=target,
        strategy=strategy,
        capabilities=capabilities,
        required_approvals=policy["required_approvals"],
        allow_self_approval=policy["allow_self_approval"],
        expires_at=timezone.now() + timedelta(seconds=policy["approval_ttl_s"]),
    )
    audit.record("approval.request", actor=actor, scope=environment, resource=("approval", approval.pk))
    return approval


@transaction.atomic
def decide(
    approval: Approval,
    *,
    decision: str,
    user: User | None,
    comment: str = "",
    expires_in_s: int | None = None,
    actor: Actor,
) -> Approval:
    """Record one person's word. One denial denies; enough approvals issue the credential."""
    if user is None:
        raise Forbidden("Only a person can decide; a machine's key never counts.", code="approval.person")
    locked = lock(approval, related=("environment__project__organization",))
    if locked.status == ApprovalStatus.PENDING and locked.expires_at <= timezone.now():
        raise Conflict("This approval has expired.", code="approval.expired")
    if locked.status != ApprovalStatus.PENDING:
        raise Conflict(f"This approval is {locked.status}.", code="approval.decided")
    if decision == "deny" and not comment.strip():
        raise InvalidInput.at("/comment", "A denial needs a comment.", code="required")
    if decision == "approve" and locked.requester_id == user.pk and not locked.allow_self_approval:
        raise Forbidden("The requester can't approve their own request here.", code="approval.self")
    if locked.decisions.filter(user=user).exists():
        raise Conflict("You have decided on this already.", code="approval.decided_before")
    ApprovalDecision.objects.create(
        approval=locked, user=user, decided_by=actor.display, decision=decision, comment=comment
    )
    audit.record(
        f"approval.decision.{decision}",
        actor=actor,
        scope=locked.environment,
        resource=("approval", locked.pk),
        changes={"comment": comment},
    )
    if decision == "deny":
        return _close(locked, ApprovalEvent.DENY, actor=actor)
    if locked.decisions.filter(decision="approve").count() < locked.required_approvals:
        return locked
    return _approve(locked, expires_in_s=expires_in_s, actor=actor)


def _approve(approval: Approval, *, expires_in_s: int | None, actor: Actor) -> Approval:
    now = timezone.now().replace(microsecond=0)  # the credential's times have whole seconds
    environment, deployment = approval.environment, _deployment_of(approval)
    policy = environment.effective_settings if deployment is None else deployment.policy
    policy_ttl = policy["approval_ttl_s"]
    expires_at = now + timedelta(seconds=min(expires_in_s or policy_ttl, policy_ttl))
    text = credential.issue(
        private_key=signing_keys.active_private_key(environment.project.organization_id),
        org_id=str(environment.project.organization_id),
        project_id=str(environment.project_id),
        environment_id=str(environment.pk),
        environment_posture=environment.posture,
        spec_hash=approval.spec_hash,
        capabilities=approval.capabilities,
        issued_at=now,
        expires_at=expires_at,
        issued_by=actor.display,
        approval_id=str(approval.pk),
    )
    approved = advance(
        approval, ApprovalEvent.APPROVE, actor=actor, credential=text, approved_at=now, expires_at=expires_at
    )
    if deployment is not None:
        advance(deployment, DeploymentEvent.APPROVE, actor=actor, approved_at=now)
        enqueue("releases.build", serial=str(deployment.pk), deployment_id=str(deployment.pk))
    return approved


def _deployment_of(approval: Approval) -> Deployment | None:
    return Deployment.objects.filter(approval=approval).first()


def _close(approval: Approval, event: ApprovalEvent, *, actor: Actor) -> Approval:
    """Deny, expire or revoke, and what waits for it with it."""
    closed = advance(approval, event, actor=actor)
    deployment = _deployment_of(closed)
    if deployment is not None:
        if event is ApprovalEvent.DENY:
            advance(deployment, DeploymentEvent.DENY, actor=actor)
        elif deployment.status in {DeploymentStatus.PENDING_APPROVAL, DeploymentStatus.APPROVED}:
            advance(deployment, DeploymentEvent.FAIL, actor=actor, reason=f"approval_{closed.status}")
    return closed


@transaction.atomic
def revoke(approval: Approval, *, actor: Actor) -> Approval:
    """Take consent back before it is used. Raises Conflict afterwards."""
    locked = lock(approval)
    if locked.used_at is not None:
        raise Conflict("This approval has been used.", code="approval.used")
    return _close(locked, ApprovalEvent.REVOKE, actor=actor)


def withdraw(approval: Approval, *, actor: Actor) -> None:
    """Close the approval of a deployment that its caller ends; the caller holds the approval's lock."""
    advance(approval, ApprovalEvent.REVOKE, actor=actor)


@transaction.atomic
def expire(approval: Approval, *, actor: Actor) -> None:
    """Close an approval that nobody decided in time; one that was decided meanwhile stays."""
    locked = lock(approval)
    if locked.status == ApprovalStatus.PENDING and locked.expires_at <= timezone.now():
        _close(locked, ApprovalEvent.EXPIRE, actor=actor)
