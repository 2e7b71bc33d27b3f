"""The act that accepts differences of a deployment and approves the deployment in one step."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.artifacts.services import packets
from apps.console.frame import Act, ActContext
from apps.console.frame.acts import permitted_by
from apps.console.frame.forms import ActForm
from apps.console.pages.approvals.deciding import APPROVE, may_decide
from apps.console.pages.approvals.facts import deployment_of
from apps.console.pages.regressions.page import name_group
from apps.releases.models import Approval
from apps.releases.services import approvals
from apps.tenancy.permissions import Permission as P
from byteor_cloud.errors import Conflict

MAX_GROUPS = 200
"""The maximum number of groups that the form for a decision offers."""


class _AcceptForm(ActForm):
    accept_groups = forms.MultipleChoiceField(
        required=False, label="Accept these differences", widget=forms.CheckboxSelectMultiple
    )
    regression_id = forms.UUIDField(required=False, widget=forms.HiddenInput)
    comment = forms.CharField(max_length=500, required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))

    def offer(self, row: Any, held: frozenset[P]) -> None:
        field: Any = self.fields["accept_groups"]
        self.fields["regression_id"].initial = row.deployment.regression_id
        field.choices = choices(packets.read_unaccepted(row.deployment, count=MAX_GROUPS))
        if not field.choices:
            del self.fields["accept_groups"]


def choices(found: packets.Unaccepted) -> list[tuple[str, str]]:
    """Return the id and the title of each group."""
    return [(each["id"], name_group(each)) for each in found.groups]


def _accept_and_approve(row: Approval, context: ActContext) -> Approval:
    _check(row)
    return approvals.decide(
        row, decision="approve", user=context.user, comment=context.values.get("comment", ""),
        accept_groups=context.values.get("accept_groups", ()), regression_id=context.values.get("regression_id"),
        actor=context.actor,
    )  # fmt: skip


def _check(row: Approval) -> None:
    """Raise Conflict if the approval is not open, or is not of a deployment that has a regression."""
    approvals.check_open(row)
    deployment = deployment_of(row)
    if deployment is None or deployment.regression_id is None:
        raise Conflict("There is no regression whose differences could be accepted.", code="acceptance.no_result")


ACCEPT = Act(
    name="accept",
    label="Accept and approve",
    done="{} given",
    explain=f"{APPROVE.explain} The comment is the reason why the chosen differences are wanted.",
    run=_accept_and_approve,
    form=_AcceptForm,
    needs=P.OPERATE_ENVIRONMENT,
    may=may_decide,
    icon="check_circle",
    applies=permitted_by(_check),
)
