"""The form for a decision on an approval, for its own page and the page of its deployment."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.artifacts.services import packets
from apps.console.frame.columns import act_url
from apps.console.frame.console_user import console_user_of
from apps.console.pages.approvals.accepting import ACCEPT, choices
from apps.console.pages.approvals.deciding import APPROVE, DENY, why_not
from apps.console.pages.approvals.waves import APPROVE_WAVE, DENY_WAVE
from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.services import approvals, replay_gate
from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.counted import count_of
from byteor.engine.machines import ApprovalStatus


def decision_form(
    request: HttpRequest,
    row: Approval,
    deployment: Deployment | None,
    decisions: list[ApprovalDecision],
    gate: packets.Gate | None,
) -> dict[str, Any] | None:
    """Return the context of the decision form. ``why`` says why this person cannot approve. If ``is_own``, the
    person is the ``requester_id`` of the approval, and the page shows the form below its panels.

    ``blocked`` has the details of ``final_blockers``. If there are any, nobody can approve. The differences that can be
    accepted together with the approval are ``groups``. The decision on a wave sends ``digest``.

    Returns None if the approval is not pending, or if it has no reviewers and the person may not operate the
    environment. ``gate`` has at most ``MAX_GROUPS`` unaccepted groups. It is None if the deployment has no regression.
    """
    why = why_not(row, console_user_of(request))
    if row.status != ApprovalStatus.PENDING or (why and not row.reviewers):
        return None
    if approvals.is_overdue(row):
        return {"why": "This request has expired."}
    if why:
        return {"why": why}
    if any(each.user_id == request.user.pk for each in decisions):
        return {"why": "You have already decided. The request is waiting for another person's decision."}
    if row.wave_report is not None:
        return _wave_form(request, row)
    urls = {act.name: act_url(row, act.name) for act in (APPROVE, DENY)}
    if own := _why_own(request, row):
        return {"why": own, "deny": urls["deny"], "is_own": row.requester_id == request.user.pk}
    if deployment is None:
        return {"explain": APPROVE.explain, **urls}
    if blocked := [each.detail for each in final_blockers(deployment, gate)]:
        return {"explain": APPROVE.explain, "blocked": blocked, "deny": urls["deny"]}
    if gate is None or not gate.unaccepted.count:
        return {"explain": APPROVE.explain, **urls}
    unaccepted = gate.unaccepted
    left = unaccepted.count - len(unaccepted.groups)
    further, them = count_of(left, "further group"), "it" if left == 1 else "them"
    rest = f"{further} cannot be chosen here. To accept {them}, use the regression's page or the API."
    return {
        "explain": ACCEPT.explain,
        "approve": act_url(row, ACCEPT.name),
        "label": ACCEPT.label,
        "deny": urls["deny"],
        "groups": choices(unaccepted),
        "regression": deployment.regression_id,
        "rest": rest if left else "",
    }


def _why_own(request: HttpRequest, row: Approval) -> str:
    """Return why self-approval rules let the person only deny the request; "" if they permit an approval."""
    if row.allow_self_approval:
        return ""
    if row.requester_id == request.user.pk:
        return "You, or a key that you created, requested this. Another person must approve it."
    return approvals.REQUESTER_UNKNOWN if row.requester_id is None else ""


def _wave_form(request: HttpRequest, row: Approval) -> dict[str, Any]:
    """Return the context of the decision form for a wave."""
    shared = {
        "deny": act_url(row, DENY_WAVE.name),
        "digest": row.wave_report and row.wave_report.digest,
    }
    if own := _why_own(request, row):
        return {"why": own, "is_own": row.requester_id == request.user.pk, **shared}
    return {"explain": APPROVE_WAVE.explain, "approve": act_url(row, APPROVE_WAVE.name), **shared}


def final_blockers(deployment: Deployment, gate: packets.Gate | None) -> list[Blocker]:
    """Return why the replay gate prevents every approval now.

    Differences that can be accepted together with the approval do not count.
    """
    if gate is None:
        return replay_gate.blockers_of(deployment, None, ())
    more = 0 if gate.row is None else gate.row.more
    return [each for each in gate.blockers if more or each.code != BlockerCode.GATE_DIFFERS]
