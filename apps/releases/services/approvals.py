"""Request, decide, revoke and expire approvals; check and spend approval credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.releases.jobs import ReplayDecided
from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.services import acceptances, replay_gate, reviewers, wave_reports, wave_statements
from apps.releases.services.deployment_jobs import (
    enqueue_break_glass_rollback,
    enqueue_build,
    enqueue_rollout_step,
)
from apps.releases.services.timeline import add_entry, advance_deployment
from apps.tenancy.actors import Actor
from apps.tenancy.message_types import REMINDER
from apps.tenancy.models import Environment, User
from apps.tenancy.services import audit, signing_keys, tokens
from apps.tenancy.services.state import advance, check_transition, keep_environments, lock_row
from byteor.engine.approval_subject import ApprovalSubject
from byteor.engine.machines import ApprovalEvent, ApprovalStatus, DeploymentEvent, DeploymentStatus
from byteor.engine.release_policy import ReleasePolicy
from byteor.engine.signing import credential
from byteor.engine.signing.refusals import ApprovalCode, Refused
from byteor.engine.target import ApprovalTarget
from byteor_cloud.errors import Conflict, FieldError, Forbidden, InvalidInput, TooManyRequests
from byteor_cloud.worker.jobs import enqueue

REMIND_AGAIN_AFTER = timedelta(hours=1)
_SELF_APPROVAL = "You, or a key that you created, requested this. Another person must approve it."
REQUESTER_UNKNOWN = (
    "This was requested with a key whose creator is unknown, so nobody can approve it. Deny it and request it again."
)
# Credentials that are refused for these reasons raise Conflict. All other refused credentials raise InvalidInput.
_CONFLICTS = {ApprovalCode.EXPIRED, ApprovalCode.REVOKED, ApprovalCode.BINDING, ApprovalCode.USED}


def request_approval(
    *,
    environment: Environment,
    policy: ReleasePolicy,
    subject: ApprovalSubject,
    resolved: Sequence[str] = (),
    count: int | None = None,
    replay_id: UUID | None = None,
    break_glass_s: int | None = None,
    start_at: datetime | None = None,
    actor: Actor,
) -> Approval:
    """Request approval of ``subject``, in the transaction that creates the deployment or replay that needs it.

    The request expires ``approval_ttl_s`` after ``start_at`` or, without a start time, after now. With
    ``break_glass_s``, it expires after that many seconds. The deployment then starts without approval, and another
    person must approve it in time.

    ``resolved`` and ``count`` show approvers the first agents that the target matches now, and the number of all of
    them. The approval is not limited to these agents.

    Raises Forbidden for a key whose creator is unknown, because the creator could approve their own request.
    """
    is_break_glass = break_glass_s is not None
    return create_request(
        environment,
        policy,
        subject,
        requester_id=requester_of(actor),
        requested_by=actor.display,
        resolved=resolved,
        count=count,
        allow_self_approval=policy.allow_self_approval and not is_break_glass,
        expires_at=(start_at or timezone.now()) + timedelta(seconds=break_glass_s or policy.approval_ttl_s),
        changes={"break_glass": True} if is_break_glass else {},
        actor=actor,
        replay_id=replay_id,
        break_glass=is_break_glass,
    )


def create_request(
    environment: Environment,
    policy: ReleasePolicy,
    subject: ApprovalSubject,
    *,
    requester_id: UUID | None,
    requested_by: str,
    resolved: Sequence[str] = (),
    count: int | None,
    allow_self_approval: bool,
    expires_at: datetime,
    changes: Mapping[str, Any],
    actor: Actor,
    **fields: Any,
) -> Approval:
    """Create a pending approval of ``subject``, and record its request. ``fields`` are further columns."""
    approval = Approval.objects.create(
        environment=environment,
        requester_id=requester_id,
        requested_by=requested_by,
        spec_hash=subject.spec_hash,
        config_hash=subject.config_hash,
        target=None if subject.target is None else ApprovalTarget(subject.target, count, tuple(resolved)),
        strategy=subject.strategy,
        capabilities=list(subject.capabilities),
        options=subject.options,
        explain=list(subject.explain),
        reviewers=list(subject.reviewers),
        required_approvals=policy.required_approvals,
        allow_self_approval=allow_self_approval,
        expires_at=expires_at,
        **fields,
    )
    audit.record(
        "approval.request", actor=actor, scope=environment, resource=("approval", approval.pk), changes=changes
    )
    return approval


def requester_of(actor: Actor) -> UUID:
    """Return the id of the acting person or the acting key's creator. Raises Forbidden if the creator is unknown."""
    person_id = tokens.person_behind(actor)
    if person_id is None:
        raise Forbidden(
            "The creator of this key is unknown and could approve their own request. "
            "Create a new key and send the request with it.",
            code="approval.requester_unknown",
        )
    return person_id


def check_credential(
    text: str, environment: Environment, subject: ApprovalSubject, *, for_update: bool = False
) -> Approval:
    """Return the credential's approval. Raises Refused unless the approval permits ``subject`` now.

    The order of the checks is part of the API contract: first the credential, then the state of its approval.
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
        raise Refused(ApprovalCode.REVOKED, "no approval has this credential")
    approval = lock_row(found) if for_update else found
    if approval.status != ApprovalStatus.APPROVED:
        raise Refused(ApprovalCode.REVOKED, f"the approval is {approval.status}")
    if different := approval.subject.differences(subject):
        raise Refused(ApprovalCode.BINDING, f"the approval is for a request with a different {', '.join(different)}")
    if approval.used_at is not None:
        raise Refused(ApprovalCode.USED, "the approval has already been used")
    return approval


def check_submitted_credential(
    text: str,
    environment: Environment,
    subject: ApprovalSubject,
    *,
    policy: ReleasePolicy,
    is_needed: bool,
    actor: Actor,
) -> Approval:
    """Return the approval of a credential that was sent with a request. The build or the replay spends it later.

    If the request needs approval (``is_needed``), the approval must also satisfy ``policy``, which may have become
    stricter after the approval. The consent of the person behind this request then counts only if both the approval and
    the policy allow self-approval. Raises InvalidInput, Conflict or Forbidden, all with the code ``approval.<reason>``.
    """
    requester_id = requester_of(actor) if is_needed else None
    try:
        approval = check_credential(text, environment, subject)
    except Refused as refused:
        code = str(refused.code)
        if refused.code in _CONFLICTS:
            raise Conflict(refused.detail, code=code) from None
        errors = [FieldError("/approval", code, refused.detail)]
        raise InvalidInput(refused.detail, code=code, errors=errors) from None
    if requester_id is None:
        return approval
    consents = reviewers.find_consents(approval)
    if (count := consents.count()) < policy.required_approvals:
        raise Conflict(
            f"The environment now requires {policy.required_approvals} people to approve, but only {count} approved.",
            code=str(ApprovalCode.BINDING),
        )
    if not (approval.allow_self_approval and policy.allow_self_approval):
        required = max(approval.required_approvals, policy.required_approvals)
        if consents.exclude(user_id=requester_id).count() < required:
            raise Forbidden(_SELF_APPROVAL, code="approval.self")
    return approval


def spend_credential(text: str, environment: Environment, subject: ApprovalSubject) -> Approval:
    """Lock the approval of a credential and spend its one use. Raises Refused."""
    approval = check_credential(text, environment, subject, for_update=True)
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
    accept_groups: Sequence[str] = (),
    regression_id: UUID | None = None,
    digest: str | None = None,
    actor: Actor,
) -> Approval:
    """Record one person's decision. One denial denies the approval; the last required consent issues the credential.

    The approval of a wave has no credential. A decision on a wave needs the ``digest`` of the report that the person
    read. If this decision approves or denies the wave, the wave statement is signed.

    With ``accept_groups``, also accepts these groups of differences, with the comment as the reason. The differences
    are those of the deployment's regression, which must be ``regression_id`` if that is passed.

    Raises Forbidden without ``user``, for a person who may not decide (see ``reviewers.check_may_decide``) and for a
    self-approval that is not allowed. Raises InvalidInput for a denial without a comment, for a missing or unexpected
    ``digest``, and for ``expires_in_s`` in a decision on a wave. Raises Conflict if the approval is not open, the
    person has already decided, or the digest is outdated. Raises Conflict for a consent while the replay gate blocks
    the deployment, and for a consent if self-approval is not allowed and the requester is unknown. With
    ``regression_id``, raises Conflict if it is not the deployment's present regression, or if the approval is that of a
    wave or a replay. With ``accept_groups``, raises InvalidInput for a denial, for an empty comment, for the approval
    of a wave or a replay, and if the deployment has no regression. Also raises the errors of ``acceptances.accept``.
    """
    if user is None:
        raise Forbidden("Only a person can decide. Sign in, or use a user token.", code="approval.person")
    if accept_groups:
        lock_row(approval.environment)  # because ``acceptances.accept`` locks it, and the lock order must be the same
    locked = _lock(approval)
    reviewers.check_may_decide(locked, user)
    check_open(locked)
    _check_digest(locked, digest, expires_in_s)
    if decision == "deny" and not comment.strip():
        raise InvalidInput.at("/comment", "A denial needs a comment.", code="required")
    if decision == "approve" and not locked.allow_self_approval:
        if locked.requester_id is None:
            raise Conflict(REQUESTER_UNKNOWN, code="approval.requester_unknown")
        if locked.requester_id == user.pk:
            raise Forbidden(_SELF_APPROVAL, code="approval.self")
    if locked.decisions.filter(user=user).exists():
        raise Conflict("You have already decided on this approval.", code="approval.decided_before")
    deployment = _deployment_of(locked)
    if regression_id is not None and (deployment is None or deployment.regression_id != regression_id):
        detail = (
            "Either this is not the current regression of the approval's deployment, or the approval is that of a wave "
            "or a replay. Look at the differences again."
        )
        raise Conflict(detail, code="acceptance.outdated")
    if accept_groups:
        _accept(deployment, accept_groups, decision=decision, reason=comment, actor=actor)
    if decision == "approve" and deployment is not None:
        check_gate(deployment)
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
    if reviewers.find_consents(locked).count() < locked.required_approvals:
        return locked
    return _approve(locked, expires_in_s=expires_in_s, issued_by=actor.display, actor=actor)


def _lock(approval: Approval) -> Approval:
    """Lock an approval. For the approval of a wave, lock the environment first, as all changes of holds do."""
    if approval.wave is not None:
        lock_row(approval.environment)
    keep_environments(approval.environment_id)
    return lock_row(approval, related=("environment__project__organization", "rollout"))


def _check_digest(approval: Approval, digest: str | None, expires_in_s: int | None) -> None:
    """Raise InvalidInput or Conflict unless ``digest`` and ``expires_in_s`` fit the approval.

    A decision on a wave must have the digest of what the earlier waves did, and must not have ``expires_in_s``. Any
    other decision must not have a digest.
    """
    report, rollout = approval.wave_report, approval.rollout
    if report is None or rollout is None or approval.wave is None:
        if digest is not None:
            raise InvalidInput.at("/digest", "Send digest only for a decision on a wave.", code="contradiction")
        return
    if expires_in_s is not None:
        raise InvalidInput.at(
            "/expires_in_s", "A decision on a wave issues no credential. Leave expires_in_s out.", code="contradiction"
        )
    if digest is None:
        raise InvalidInput.at("/digest", "Send the digest of the report that you have read.", code="required")
    if digest != report.digest or not wave_reports.is_up_to_date(approval, rollout):
        detail = "The report that you read is not the current one. Usually, the earlier waves have done more since."
        raise Conflict(f"{detail} Read the approval of the wave again.", code="approval.outdated")


def _accept(deployment: Deployment | None, groups: Sequence[str], *, decision: str, reason: str, actor: Actor) -> None:
    if deployment is None or deployment.regression is None:
        detail = (
            "A decision can accept differences only if it is on a deployment that has a regression. Decisions on waves "
            "and replays cannot accept differences."
        )
        raise InvalidInput.at("/accept_groups", detail, code="contradiction")
    if decision != "approve":
        detail = "Differences can be accepted only together with an approval."
        raise InvalidInput.at("/accept_groups", detail, code="contradiction")
    if not reason.strip():
        raise InvalidInput.at("/comment", "Say why the differences are wanted.", code="required")
    acceptances.accept(deployment.regression, groups=groups, reason=reason, actor=actor, pointer="/accept_groups")


def check_gate(deployment: Deployment) -> None:
    """Raise Conflict if the replay gate blocks the deployment, so that nobody can approve it now."""
    if blocked := replay_gate.find_blockers([deployment]).get(deployment.pk):
        detail = " ".join(each.detail for each in blocked)
        raise Conflict(f"The replay gate blocks the deployment. {detail}", code=blocked[0].code)


def is_overdue(approval: Approval) -> bool:
    """Return whether the approval is pending although its time is over.

    An approval does not expire while its deployment waits for a regression that has not finished. The approval of a
    wave does not expire while its deployment is paused.
    """
    if approval.status != ApprovalStatus.PENDING or approval.expires_at > timezone.now():
        return False
    if approval.rollout is not None and approval.rollout.paused_at is not None:
        return False
    return not replay_gate.standing_still().filter(approval=approval).exists()


def check_open(approval: Approval) -> None:
    """Raise Conflict unless the approval is pending and has not expired."""
    if is_overdue(approval):
        raise Conflict("This approval has expired.", code="approval.expired")
    if approval.status != ApprovalStatus.PENDING:
        raise Conflict(f"This approval is {approval.status}.", code="approval.decided")


def _approve(approval: Approval, *, expires_in_s: int | None, issued_by: str, actor: Actor) -> Approval:
    """Grant an approval that enough people have approved. The credential names the last of them (``issued_by``)."""
    now = timezone.now().replace(microsecond=0)  # because the times in a credential are whole seconds
    if approval.wave is not None:
        statement = wave_statements.sign(approval, ApprovalStatus.APPROVED)
        approved = advance(approval, ApprovalEvent.APPROVE, actor=actor, approved_at=now, statement=statement)
        _end_hold(approved)
        _continue_rollout(approved, actor=actor)
        return approved
    environment, deployment = approval.environment, _deployment_of(approval)
    policy = environment.effective_settings.release if deployment is None else deployment.policy
    ttl_s = min(expires_in_s or policy.approval_ttl_s, policy.approval_ttl_s)
    start_at = None if deployment is None else deployment.start_at
    expires_at = max(now, start_at or now).replace(microsecond=0) + timedelta(seconds=ttl_s)
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
        issued_by=issued_by,
        approval_id=str(approval.pk),
    )
    fields: dict[str, Any] = {"credential": text, "approved_at": now, "expires_at": expires_at}
    if approval.break_glass:
        fields["used_at"] = now  # the build of a break-glass deployment spends no approval
    approved = advance(approval, ApprovalEvent.APPROVE, actor=actor, **fields)
    if deployment is not None and approved.break_glass:
        add_entry(deployment, "break_glass_approved", actor=actor)
    elif deployment is not None:
        advance_deployment(deployment, DeploymentEvent.APPROVE, actor=actor, approved_at=now)
        enqueue_build(deployment.pk)
    _notify_replay(approved)
    return approved


@transaction.atomic
def change_reviewers(deployment: Deployment, *, reviewer_ids: Sequence[UUID], reason: str = "", actor: Actor) -> None:
    """Change the reviewers as ``reviewers.change`` does, and grant approvals that enough of them have already approved.

    Without this, such an approval might never be granted, because nobody can decide twice. An approval that has
    expired, or whose wave needs another report, is left to the worker. Raises the errors of ``reviewers.change``, and
    Conflict if the replay gate blocks a deployment that would be approved.
    """
    for approval in reviewers.change(deployment, reviewers=reviewer_ids, reason=reason, actor=actor):
        consents = reviewers.find_consents(approval)
        is_valid = not is_overdue(approval) and wave_reports.is_up_to_date(approval, deployment)
        if is_valid and consents.count() >= approval.required_approvals:
            if (found := _deployment_of(approval)) is not None:
                check_gate(found)
            last = consents.order_by("-id").values_list("decided_by", flat=True).first() or ""
            _approve(approval, expires_in_s=None, issued_by=last, actor=actor)


def _deployment_of(approval: Approval) -> Deployment | None:
    return Deployment.objects.filter(approval=approval).first()


def _close(approval: Approval, event: ApprovalEvent, *, actor: Actor) -> Approval:
    """Deny, expire or revoke an approval. Stop its deployment or replay, or roll back its break-glass deployment.

    If the approval is of a wave, the next step of the deployment stops the deployment or requests the approval again.
    """
    is_denied_wave = approval.wave is not None and event is ApprovalEvent.DENY
    signed: dict[str, Any] = (
        {"statement": wave_statements.sign(approval, ApprovalStatus.DENIED)} if is_denied_wave else {}
    )
    closed = advance(approval, event, actor=actor, **signed)
    if closed.wave is not None:
        _continue_rollout(closed, actor=actor)
        return closed
    deployment = _deployment_of(closed)
    if deployment is not None and closed.break_glass:
        add_entry(deployment, f"break_glass_{closed.status}", actor=actor)
        enqueue_break_glass_rollback(deployment.pk)
    elif deployment is not None and event is ApprovalEvent.DENY:
        advance_deployment(deployment, DeploymentEvent.DENY, actor=actor)
    elif deployment is not None and deployment.status in {DeploymentStatus.PENDING_APPROVAL, DeploymentStatus.APPROVED}:
        advance_deployment(deployment, DeploymentEvent.FAIL, actor=actor, reason=f"approval_{closed.status}")
    _notify_replay(closed)
    return closed


def _end_hold(approval: Approval) -> None:
    """Mark the hold of an approved wave as over. The caller has locked the environment."""
    deployment = None if approval.rollout is None else lock_row(approval.rollout)
    hold = None if deployment is None else deployment.wave_hold
    if deployment is not None and hold is not None and hold.approval_id == approval.pk:
        deployment.wave_hold = replace(hold, is_over=True)
        deployment.save(update_fields=["wave_hold"])


def _continue_rollout(approval: Approval, *, actor: Actor) -> None:
    """Record in the timeline how a wave's approval ended, and enqueue the step that acts on the outcome."""
    if approval.rollout is not None and approval.wave is not None:
        add_entry(approval.rollout, f"wave_{approval.status}", actor=actor, detail={"wave": approval.wave + 1})
        enqueue_rollout_step(approval.rollout_id)


def _notify_replay(approval: Approval) -> None:
    """Enqueue the job that queues or stops the approval's replay, if the approval has one."""
    if approval.replay_id is not None:
        organization = approval.environment.project.organization_id
        enqueue(ReplayDecided(approval_id=str(approval.pk)), organization=organization)


@transaction.atomic
def revoke(approval: Approval, *, actor: Actor) -> Approval:
    """Revoke an approval that is pending, or approved and not used. Raises Conflict for any other approval."""
    locked = _lock(approval)
    check_revoke(locked)
    return _close(locked, ApprovalEvent.REVOKE, actor=actor)


def check_revoke(approval: Approval) -> None:
    """Raise Conflict if ``revoke`` would refuse the approval now."""
    if approval.used_at is not None:
        raise Conflict("This approval has been used.", code="approval.used")
    check_transition(approval, ApprovalEvent.REVOKE)


@transaction.atomic
def remind(approval: Approval, *, actor: Actor) -> None:
    """Send another notification to the people who can still decide on a pending approval.

    Raises Forbidden unless the actor is the requester, or a key that the requester created. Raises Conflict if the
    approval is not open, and TooManyRequests within an hour of the last reminder.
    """
    locked = _lock(approval)
    if locked.requester_id is None or locked.requester_id != tokens.person_behind(actor):
        raise Forbidden(
            "Only the requester, or a key that the requester created, can send a reminder.",
            code="approval.not_requester",
        )
    check_open(locked)
    now = timezone.now()
    remaining = timedelta(0) if locked.reminded_at is None else locked.reminded_at + REMIND_AGAIN_AFTER - now
    if remaining > timedelta(0):
        raise TooManyRequests(
            "A reminder was sent less than an hour ago. Try again later.",
            retry_after=ceil(remaining.total_seconds()),
        )
    locked.reminded_at = now
    locked.save(update_fields=["reminded_at"])
    audit.record(
        REMINDER,
        actor=actor,
        scope=locked.environment,
        resource=("approval", locked.pk),
        changes={"break_glass": True} if locked.break_glass else {},
    )


def withdraw(approval: Approval, *, actor: Actor) -> None:
    """Revoke the approval of a deployment that is being aborted. The caller has locked the approval."""
    advance(approval, ApprovalEvent.REVOKE, actor=actor)


@transaction.atomic
def expire(approval: Approval, *, actor: Actor) -> None:
    """Expire a pending approval whose time is over. Do nothing for any other approval."""
    locked = _lock(approval)
    if is_overdue(locked):
        _close(locked, ApprovalEvent.EXPIRE, actor=actor)
