"""People's consent: asked for, decided, revoked, expired; the credential that an approval issues."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.releases.jobs import ReplayDecided
from apps.releases.models import Approval, ApprovalDecision, Deployment, TimelineEntry
from apps.releases.services import offers
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, User
from apps.tenancy.services import signing_keys, tokens
from apps.tenancy.state import advance, check_step, lock
from byteor_cloud.engine.delivery import credential
from byteor_cloud.engine.delivery.refusals import ApprovalCode, Refused
from byteor_cloud.engine.machines import ApprovalEvent, ApprovalStatus, DeploymentEvent, DeploymentStatus
from byteor_cloud.engine.release_policy import ReleasePolicy
from byteor_cloud.engine.rollout import Strategy
from byteor_cloud.engine.target import ApprovalTarget, ReplayTarget, Target
from byteor_cloud.errors import Conflict, FieldError, Forbidden, InvalidInput
from byteor_cloud.jobs import enqueue

_OWN = "You, or a key that you made, asked for this: somebody else must approve it."
REQUESTER_UNKNOWN = (
    "A key asked for this that nobody is known to have made, so nobody can approve it. Deny it, and ask again."
)
# What the credential itself says makes a request invalid; what became of its approval is a conflict.
_CONFLICTS = {ApprovalCode.EXPIRED, ApprovalCode.REVOKED, ApprovalCode.BINDING, ApprovalCode.USED}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is consented to: everything that an approver is shown."""

    spec_hash: str
    config_hash: str | None
    target: Target | ReplayTarget
    strategy: Strategy | None
    capabilities: Collection[str]


def request_approval(
    *,
    environment: Environment,
    policy: ReleasePolicy,
    subject: Subject,
    resolved: Sequence[str] = (),
    count: int | None = None,
    replay_id: UUID | None = None,
    break_glass_s: int | None = None,
    actor: Actor,
) -> Approval:
    """Ask for consent to exactly this; call it in the transaction that creates what needs it.

    ``resolved`` and ``count`` say which agents the target finds now; they are shown but not bound. ``break_glass_s``:
    it goes ahead at once, and somebody else must consent within that time. Raises Forbidden for a key that nobody is
    known to have made: its requester could not be told from the approvers.
    """
    breaking = break_glass_s is not None
    approval = Approval.objects.create(
        environment=environment,
        requester_id=_requester(actor),
        requested_by=actor.display,
        replay_id=replay_id,
        break_glass=breaking,
        spec_hash=subject.spec_hash,
        config_hash=subject.config_hash,
        target=ApprovalTarget(subject.target, count, tuple(resolved)),
        strategy=subject.strategy,
        capabilities=sorted(subject.capabilities),
        required_approvals=policy.required_approvals,
        allow_self_approval=policy.allow_self_approval and not breaking,
        expires_at=timezone.now() + timedelta(seconds=break_glass_s or policy.approval_ttl_s),
    )
    audit.record(
        "approval.request",
        actor=actor,
        scope=environment,
        resource=("approval", approval.pk),
        changes={"break_glass": True} if breaking else {},
    )
    return approval


def _requester(actor: Actor) -> UUID:
    """Return the id of the person who asks, or who made the key that asks. Raises Forbidden where nobody knows."""
    person_id = tokens.person_behind(actor)
    if person_id is None:
        raise Forbidden(
            "Nobody is known to have made this key, so its request could be approved by the one who makes it. "
            "Make a new key and ask with that.",
            code="approval.requester_unknown",
        )
    return person_id


def check(text: str, environment: Environment, subject: Subject, *, lock_it: bool = False) -> Approval:
    """The approval behind a credential that serves for ``subject`` in ``environment`` now. Raises Refused.

    In the contract's order: what the credential says, then what became of the approval.
    """
    payload = credential.verify(
        text,
        keyset=signing_keys.key_set(environment.project.organization_id),
        spec_hash=subject.spec_hash,
        environment_id=str(environment.pk),
        at=timezone.now(),
        capabilities=subject.capabilities,
    )
    found = Approval.objects.filter(pk=payload.approval_id, environment=environment, credential=text).first()
    if found is None:
        raise Refused(ApprovalCode.REVOKED, "there is no such approval any more")
    approval = lock(found) if lock_it else found
    if approval.status != ApprovalStatus.APPROVED:
        raise Refused(ApprovalCode.REVOKED, f"the approval is {approval.status}")
    bound = approval.target and approval.target.bound
    if (approval.config_hash, bound, approval.strategy) != (subject.config_hash, subject.target, subject.strategy):
        raise Refused(ApprovalCode.BINDING, "another configuration, target or strategy was approved")
    if approval.used_at is not None:
        raise Refused(ApprovalCode.USED, "the approval has served its one use")
    return approval


def hand_in(text: str, environment: Environment, subject: Subject, *, is_needed: bool, actor: Actor) -> Approval:
    """Return the approval behind a credential that came with a request; it is spent when the use begins.

    ``is_needed`` says that the request needs consent. Then the word of whoever asks now does not count, unless the
    approval says that a requester's own does. Raises InvalidInput, Conflict or Forbidden, all with the code
    ``approval.<reason>``.
    """
    requester_id = _requester(actor) if is_needed else None
    try:
        approval = check(text, environment, subject)
    except Refused as refused:
        code = str(refused.code)
        if refused.code in _CONFLICTS:
            raise Conflict(refused.detail, code=code) from None
        errors = [FieldError("/approval", code, refused.detail)]
        raise InvalidInput(refused.detail, code=code, errors=errors) from None
    if requester_id is not None and not approval.allow_self_approval:
        others = approval.decisions.filter(decision="approve").exclude(user_id=requester_id)
        if others.count() < approval.required_approvals:
            raise Forbidden(_OWN, code="approval.self")
    return approval


def use(text: str, environment: Environment, subject: Subject) -> Approval:
    """Spend the one use of the approval behind a credential, under its lock. Raises Refused."""
    approval = check(text, environment, subject, lock_it=True)
    approval.used_at = timezone.now()
    approval.save(update_fields=["used_at"])
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
    check_open(locked)
    if decision == "deny" and not comment.strip():
        raise InvalidInput.at("/comment", "A denial needs a comment.", code="required")
    if decision == "approve" and not locked.allow_self_approval:
        if locked.requester_id is None:
            raise Conflict(REQUESTER_UNKNOWN, code="approval.requester_unknown")
        if locked.requester_id == user.pk:
            raise Forbidden(_OWN, code="approval.self")
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


def check_open(approval: Approval) -> None:
    """Raise Conflict unless somebody may decide on it now."""
    if approval.status == ApprovalStatus.PENDING and approval.expires_at <= timezone.now():
        raise Conflict("This approval has expired.", code="approval.expired")
    if approval.status != ApprovalStatus.PENDING:
        raise Conflict(f"This approval is {approval.status}.", code="approval.decided")


def _approve(approval: Approval, *, expires_in_s: int | None, actor: Actor) -> Approval:
    now = timezone.now().replace(microsecond=0)  # the credential's times have whole seconds
    environment, deployment = approval.environment, _deployment_of(approval)
    policy = environment.effective_settings.release if deployment is None else deployment.policy
    ttl_s = min(expires_in_s or policy.approval_ttl_s, policy.approval_ttl_s)
    expires_at = now + timedelta(seconds=ttl_s)
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
    given: dict[str, Any] = {"credential": text, "approved_at": now, "expires_at": expires_at}
    if approval.break_glass:
        given["used_at"] = now  # the use that it is for has begun
    approved = advance(approval, ApprovalEvent.APPROVE, actor=actor, **given)
    if deployment is not None and approved.break_glass:
        _tell(deployment, "break_glass_approved", actor)
    elif deployment is not None:
        advance(deployment, DeploymentEvent.APPROVE, actor=actor, approved_at=now)
        offers.enqueue_build(deployment.pk)
    _tell_replay(approved)
    return approved


def _deployment_of(approval: Approval) -> Deployment | None:
    return Deployment.objects.filter(approval=approval).first()


def _close(approval: Approval, event: ApprovalEvent, *, actor: Actor) -> Approval:
    """Without consent what waits for it ends; what went ahead by break-glass is undone."""
    closed = advance(approval, event, actor=actor)
    deployment = _deployment_of(closed)
    if deployment is not None and closed.break_glass:
        _tell(deployment, f"break_glass_{closed.status}", actor)
        offers.enqueue_undo(deployment.pk)
    elif deployment is not None and event is ApprovalEvent.DENY:
        advance(deployment, DeploymentEvent.DENY, actor=actor)
    elif deployment is not None and deployment.status in {DeploymentStatus.PENDING_APPROVAL, DeploymentStatus.APPROVED}:
        advance(deployment, DeploymentEvent.FAIL, actor=actor, reason=f"approval_{closed.status}")
    _tell_replay(closed)
    return closed


def _tell(deployment: Deployment, event: str, actor: Actor) -> None:
    TimelineEntry.objects.create(deployment=deployment, event=event, actor=actor.display)


def _tell_replay(approval: Approval) -> None:
    """A replay that waits for it lives in the app above, and goes on by a job."""
    if approval.replay_id is not None:
        organization = approval.environment.project.organization_id
        enqueue(ReplayDecided(approval_id=str(approval.pk)), organization=organization)


@transaction.atomic
def revoke(approval: Approval, *, actor: Actor) -> Approval:
    """Take consent back before it is used. Raises Conflict afterwards."""
    locked = lock(approval)
    check_revoke(locked)
    return _close(locked, ApprovalEvent.REVOKE, actor=actor)


def check_revoke(approval: Approval) -> None:
    """Raise what ``revoke`` is refused with now."""
    if approval.used_at is not None:
        raise Conflict("This approval has been used.", code="approval.used")
    check_step(approval, ApprovalEvent.REVOKE)


def withdraw(approval: Approval, *, actor: Actor) -> None:
    """Close the approval of a deployment that its caller ends; the caller holds the approval's lock."""
    advance(approval, ApprovalEvent.REVOKE, actor=actor)


@transaction.atomic
def expire(approval: Approval, *, actor: Actor) -> None:
    """Close an approval that nobody decided in time; one that was decided meanwhile stays."""
    locked = lock(approval)
    if locked.status == ApprovalStatus.PENDING and locked.expires_at <= timezone.now():
        _close(locked, ApprovalEvent.EXPIRE, actor=actor)
