"""Holds before the waves of a deployment. Callers lock the environment before they change a hold.

The deployment's row contains the hold before its next wave. An approval hold has an approval of its own, which covers
what the earlier waves did. If this changes before the wave starts, the approval is withdrawn and requested again.
"""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from apps.releases.models import Approval, Deployment
from apps.releases.services import approvals, reviewers
from apps.releases.services.timeline import record_event
from apps.releases.services.wave_reports import is_up_to_date, read_report
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.services.state import advance, lock_row
from byteor.engine.machines import ApprovalEvent, ApprovalStatus
from byteor.engine.rollout import Hold, StepPlan
from byteor.engine.wave_hold import HoldFacts, WaveHold, WaveReport
from byteor_cloud.errors import Conflict

WORKER = system_actor("rollout")
WAVE_DENIED = "wave_denied"
_OPEN = {ApprovalStatus.PENDING, ApprovalStatus.APPROVED}


def find_approval(deployment: Deployment) -> Approval | None:
    """Return the approval of the wave that the deployment waits for, or None without an approval hold."""
    hold = deployment.wave_hold
    if hold is None or hold.approval_id is None:
        return None
    return Approval.objects.filter(pk=hold.approval_id).select_related("environment__project").first()


def find_released(deployment: Deployment) -> int:
    """Return the wave whose approval hold is over, or 0 if there is none.

    The hold is over if the approval was given and covers what the earlier waves have done until now.
    """
    hold, approval = deployment.wave_hold, find_approval(deployment)
    if hold is None or approval is None or approval.status != ApprovalStatus.APPROVED:
        return 0
    return hold.wave if is_up_to_date(approval, deployment) else 0


def keep(deployment: Deployment, plan: StepPlan) -> None:
    """Begin the hold of the step plan, or keep it if the deployment has it already.

    Requests the approval of an approval hold, again if the last one is no longer pending or is outdated.
    """
    if plan.hold is None:
        return
    standing, approval = deployment.wave_hold, find_approval(deployment)
    is_same = standing is not None and (standing.wave, standing.kind) == (plan.held_wave, plan.hold)
    if is_same and plan.hold is Hold.MANUAL:
        return
    is_asked = is_same and approval is not None and approval.status == ApprovalStatus.PENDING
    if is_asked and approval is not None and is_up_to_date(approval, deployment):
        return
    report = read_report(deployment, plan.held_wave) if plan.hold is Hold.APPROVAL else None
    _withdraw(approval, actor=WORKER)
    since = standing.since if standing is not None and is_same else timezone.now()
    requested = None if report is None else _request(deployment, report)
    deployment.wave_hold = WaveHold(plan.held_wave, plan.hold, since, None if requested is None else requested.pk)
    deployment.save(update_fields=["wave_hold"])
    changes = {
        "wave": plan.held_wave + 1,
        "kind": plan.hold,
        **({"approval": str(requested.pk)} if requested else {}),
        **({"report": report.summary} if report else {}),
    }
    record_event(deployment, "hold", changes, actor=WORKER)


def _request(deployment: Deployment, report: WaveReport) -> Approval:
    """Request the approval of the next wave, under the deployment's policy and reviewers."""
    policy = deployment.policy
    return approvals.create_request(
        deployment.environment,
        policy,
        deployment.subject,
        requester_id=deployment.requester_id,
        requested_by=deployment.requested_by,
        count=deployment.target_count,
        allow_self_approval=reviewers.may_decide_own(deployment),
        expires_at=timezone.now() + timedelta(seconds=policy.approval_ttl_s),
        changes={"deployment": str(deployment.pk), "wave": report.wave + 1, "digest": report.digest},
        actor=WORKER,
        rollout=deployment,
        wave=report.wave,
        wave_report=report,
    )


def lift(deployment: Deployment, *, actor: Actor) -> None:
    """End the hold, if there is one, and withdraw its approval unless that was used or has ended."""
    if deployment.wave_hold is None:
        return
    _withdraw(find_approval(deployment), actor=actor)
    deployment.wave_hold = None
    deployment.save(update_fields=["wave_hold"])


def use(deployment: Deployment, wave: int) -> None:
    """End the hold because ``wave`` starts. Marks the approval as used if this wave is approved, or withdraws it."""
    hold, approval = deployment.wave_hold, find_approval(deployment)
    if hold is not None and hold.wave == wave and approval is not None and approval.status == ApprovalStatus.APPROVED:
        locked = lock_row(approval)
        locked.used_at = timezone.now()
        locked.save(update_fields=["used_at"])
    lift(deployment, actor=WORKER)


def _withdraw(approval: Approval | None, *, actor: Actor) -> None:
    if approval is not None and approval.status in _OPEN and approval.used_at is None:
        advance(approval, ApprovalEvent.REVOKE, actor=actor)


def check_not_denied(deployment: Deployment) -> None:
    """Raise Conflict if a wave of the deployment was denied. The step after the denial stops the deployment."""
    if deployment.reason == WAVE_DENIED:
        detail = "A wave of the deployment was denied. Create a new deployment instead."
        raise Conflict(detail, code=WAVE_DENIED)
    approval = find_approval(deployment)
    if approval is not None and approval.status == ApprovalStatus.DENIED:
        raise Conflict("The next wave was denied, so the deployment stops.", code=WAVE_DENIED)


def resume_clock(deployment: Deployment) -> None:
    """Extend the pending approval of a wave by the part of the deployment's pause since the approval was requested.

    Call this before the deployment is resumed. The caller has locked the environment.
    """
    approval = find_approval(deployment)
    if approval is None or approval.status != ApprovalStatus.PENDING or deployment.paused_at is None:
        return
    locked = lock_row(approval)
    locked.expires_at += timezone.now() - max(deployment.paused_at, locked.created_at)
    locked.save(update_fields=["expires_at"])


def describe(deployment: Deployment) -> HoldFacts | None:
    """Return the hold in effect and who can end it, or None.

    A hold whose wave is approved is no longer in effect, although the wave may still wait for the end of a pause.
    """
    hold = deployment.wave_hold
    if hold is None or hold.is_over:
        return None
    waves = len(deployment.strategy.percents)
    approval = find_approval(deployment)
    if approval is None:
        return HoldFacts(hold=hold, waves=waves)
    return HoldFacts(
        hold=hold,
        waves=waves,
        given=reviewers.find_consents(approval).count(),
        required=approval.required_approvals,
        deciders=reviewers.name_deciders(approval) if approval.status == ApprovalStatus.PENDING else "",
        expires_at=approval.expires_at,
    )
