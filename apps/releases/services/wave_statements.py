"""The signed statements of the decisions on a deployment's waves."""

from __future__ import annotations

from django.utils import timezone

from apps.releases.models import Approval, Deployment
from apps.tenancy.services import signing_keys
from byteor.engine.canonical import Json, canonical, parse_object
from byteor.engine.machines import ApprovalStatus
from byteor.engine.signing import wave_statement
from byteor.engine.signing.approval_record import Decision
from byteor.engine.signing.wave_statement import WaveStatement


def sign(approval: Approval, status: ApprovalStatus) -> str:
    """Return the signed statement of the decisions on a wave, as canonical JSON. ``status`` is approved or denied.

    Call this in the transaction that approves or denies the wave. The caller has locked the
    environment, so that no other statement of the deployment is signed at the same time.
    """
    report, deployment = approval.wave_report, approval.rollout
    if report is None or deployment is None:
        raise ValueError(f"{approval} is not for a wave")
    environment, decisions = approval.environment, list_decisions(approval)
    places = [wave_statement.find_place(each) for each in list_statements(deployment)]
    times = (*(each.decided_at for each in decisions), *(each.signed_at for each in places))
    statement = WaveStatement(
        bundle_hash=report.bundle_hash,
        org_id=str(environment.project.organization_id),
        project_id=str(environment.project_id),
        environment_id=str(environment.pk),
        deployment_id=str(deployment.pk),
        approval_id=str(approval.pk),
        number=len(places) + 1,
        previous=places[-1].payload_hash if places else None,
        wave=report.wave,
        report=report,
        digest=report.digest,
        status=status.value,
        required_approvals=approval.required_approvals,
        allow_self_approval=approval.allow_self_approval,
        reviewers=tuple(approval.reviewers),
        requester_id=None if approval.requester_id is None else str(approval.requester_id),
        requested_by=approval.requested_by,
        decisions=decisions,
        signed_at=max(timezone.now(), *times),  # the clocks of servers differ
    )
    private_key = signing_keys.active_private_key(environment.project.organization_id)
    return canonical(wave_statement.sign(statement, private_key)).decode()


def list_decisions(approval: Approval) -> tuple[Decision, ...]:
    """Return the decisions on an approval, oldest first, in the form that is signed."""
    return tuple(
        Decision(
            user_id=str(decision.user_id),
            decided_by=decision.decided_by,
            decision=decision.decision,
            comment=decision.comment,
            decided_at=decision.created_at,
        )
        for decision in approval.decisions.order_by("id")
    )


def list_statements(deployment: Deployment) -> list[Json]:
    """Return the signed statements of all waves that were approved or denied, in the order in which they were signed.

    The statements of approvals that were withdrawn later are included.
    """
    rows = deployment.wave_approvals.exclude(statement=None).values_list("statement", flat=True)
    envelopes = [parse_object(text) for text in rows if text is not None]
    return sorted(envelopes, key=lambda each: wave_statement.find_place(each).number)
