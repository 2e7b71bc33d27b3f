"""The form for a decision on an approval, for its own page and the page of its deployment."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps.artifacts.services import packets
from apps.console.frame.columns import act_url
from apps.console.frame.console_user import console_user_of
from apps.console.frame.forms import new_form_id
from apps.console.pages.approvals.accepting import ACCEPT, MAX_GROUPS, choices
from apps.console.pages.approvals.deciding import APPROVE, DENY
from apps.releases.models import Approval, ApprovalDecision, Deployment, Regression
from apps.releases.services import approvals, replay_gate
from apps.tenancy.permissions import Permission as P
from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.machines import ApprovalStatus
from byteor.engine.regression import count_of


def decision_form(
    request: HttpRequest, row: Approval, deployment: Deployment | None, decisions: list[ApprovalDecision]
) -> dict[str, Any] | None:
    """Return the context of the decision form. If the person cannot approve, ``why`` is the reason.

    If the replay gate blocks the deployment, ``blocked`` has the reasons, and nobody can approve. The differences that
    can be accepted together with the approval are ``groups``. Returns None if the approval is not pending, or if the
    person may not operate the environment.
    """
    held = console_user_of(request).permissions(row.environment)
    if row.status != ApprovalStatus.PENDING or P.OPERATE_ENVIRONMENT not in held:
        return None
    if approvals.is_overdue(row):
        return {"why": "This request has expired."}
    if any(each.user_id == request.user.pk for each in decisions):
        return {"why": "You have already decided. The request is waiting for another person's decision."}
    urls = {act.name: act_url(row, act.name) for act in (APPROVE, DENY)}
    if row.requester_id == request.user.pk and not row.allow_self_approval:
        why = "You, or a key that you created, requested this. Another person must approve it."
        return {"why": why, "deny": urls["deny"]}
    if row.requester_id is None and not row.allow_self_approval:
        return {"why": approvals.REQUESTER_UNKNOWN, "deny": urls["deny"]}
    if deployment is None:
        return {"explain": APPROVE.explain, **urls}
    blocked, unaccepted = _read_gate(deployment)
    if blocked:
        return {"explain": APPROVE.explain, "blocked": blocked, "deny": urls["deny"]}
    if not unaccepted.count:
        return {"explain": APPROVE.explain, **urls}
    rest = unaccepted.count - len(unaccepted.groups)
    return {
        "explain": ACCEPT.explain,
        "approve": act_url(row, ACCEPT.name),
        "label": ACCEPT.label,
        "deny": urls["deny"],
        "groups": choices(unaccepted),
        "regression": deployment.regression_id,
        "rest": f"{count_of(rest, 'further group')} can be accepted only with the API." if rest else "",
        "form_id": new_form_id(),
    }


def _read_gate(deployment: Deployment) -> tuple[list[str], packets.Unaccepted]:
    """Return the reasons why nobody can approve now. Without reasons, also return the groups that are not accepted."""
    nothing = packets.Unaccepted(0, [])
    if deployment.regression_id is None:
        return [each.detail for each in _blockers(deployment)], nothing
    more = Regression.objects.values_list("more", flat=True).get(pk=deployment.regression_id)
    final = [each.detail for each in _blockers(deployment) if more or each.code != BlockerCode.GATE_DIFFERS]
    return (final, nothing) if final else ([], packets.read_unaccepted(deployment, count=MAX_GROUPS))


def _blockers(deployment: Deployment) -> list[Blocker]:
    return replay_gate.find_blockers([deployment]).get(deployment.pk, [])
