"""The acts and the panel for decisions on an approval, for its own page and the page of its deployment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from apps.console.frame import Act, ActContext, relative_time, state_pill, with_note
from apps.console.frame.acts import permitted_by
from apps.console.frame.console_user import ConsoleUser
from apps.releases.api import commands
from apps.releases.models import Approval, ApprovalDecision
from apps.releases.services import approvals, reviewers
from apps.tenancy.permissions import Permission as P
from byteor_cloud.errors import Conflict, Forbidden


def why_not(row: Approval, console_user: ConsoleUser) -> str:
    """Return why the person's permissions or the list of reviewers exclude a decision; "" if they do not."""
    # An installation operator needs a role in the organization or the project, as for ``reviewers.check_may_decide``.
    granted = replace(console_user, is_superuser=False).permissions(row.environment)
    try:
        reviewers.check_permissions(row, console_user.user_id, granted)
    except Forbidden as error:
        return error.detail
    return ""


def may_decide(row: Approval, console_user: ConsoleUser) -> bool:
    """Return whether the person's permissions and the list of reviewers permit a decision on the approval."""
    return not why_not(row, console_user)


def _check(row: Approval) -> None:
    """Raise Conflict if the approval is not open, or if it is of a wave, which has acts of its own."""
    approvals.check_open(row)
    if row.wave is not None:
        detail = "This request is for a wave. Open the page of the request, which shows what the decision covers."
        raise Conflict(detail, code="approval.wave")


def _decide(decision: str) -> Any:
    def run(row: Approval, context: ActContext) -> None:
        _check(row)
        approvals.decide(row, decision=decision, user=context.user, comment=context.comment, actor=context.actor)

    return run


APPROVE = Act(
    name="approve",
    label="Approve",
    done="{} given",
    explain="Your approval covers exactly the request that is shown here, except the note. The approval can be used "
    "once.",
    run=_decide("approve"),
    needs=P.OPERATE_ENVIRONMENT,
    may=may_decide,
    icon="check_circle",
    comment="optional",
    comment_label="Comment",
    applies=permitted_by(_check),
)
DENY = Act(
    name="deny",
    label="Deny",
    done="{} denied",
    explain="A single denial denies the request. Give the reason in the comment, which the requester can read.",
    run=_decide("deny"),
    needs=P.OPERATE_ENVIRONMENT,
    may=may_decide,
    icon="cancel",
    comment="required",
    comment_label="Comment",
    dangerous=True,
    applies=permitted_by(_check),
)
REVOKE = Act.of(
    commands.revoke,
    label="Revoke",
    done="{} revoked",
    explain="The approval can no longer be used. A deployment or replay that waits for it does not start, and a "
    "break-glass deployment is rolled back if possible. If the approval is for a wave, it is requested again.",
    icon="block",
    dangerous=True,
)


def _is_requester(row: Approval, console_user: ConsoleUser) -> bool:
    may_operate = P.OPERATE_ENVIRONMENT in console_user.permissions(row.environment)
    return may_operate and row.requester_id is not None and row.requester_id == console_user.user_id


REMIND = Act.of(
    commands.remind,
    label="Remind",
    done="People who can decide on {} notified",
    explain="The people who can still decide are notified again. You can send one reminder an hour.",
    icon="notifications_active",
    may=_is_requester,
)


def on_deployment_page(act: Act, done: str) -> Act:
    """Return the act on an approval as an act on its deployment, with another phrase for what happened."""
    may = act.may or may_decide
    return replace(
        act,
        done=done,
        run=lambda row, context: act.run(row.approval, context),
        applies=lambda row: row.approval is not None and act.applies(row.approval),
        may=lambda row, user: row.approval is not None and may(row.approval, user),
    )


def decisions_panel(row: Approval, decisions: list[ApprovalDecision]) -> dict[str, Any]:
    """Return the panel that lists the decisions."""
    return {
        "title": "Decisions",
        "columns": ("Who", "Decision", "Comment"),
        "rows": [
            (
                with_note(each.decided_by, relative_time(each.created_at)),
                state_pill(each.decision),
                each.comment or "-",
            )
            for each in decisions
        ],
        "empty": "Nobody has decided.",
    }
