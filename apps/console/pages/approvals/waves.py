"""Decisions on a wave: the acts, and what the earlier waves did."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.console.frame import Act, ActContext, with_note
from apps.console.frame.acts import Refusal, permitted_by
from apps.console.frame.columns import TONES, row_url
from apps.console.frame.forms import ActForm
from apps.console.pages.approvals.deciding import APPROVE, DENY, may_decide
from apps.console.pages.deployments.phrases import FAILED_HOW, describe_detail
from apps.releases.models import Approval
from apps.releases.services import approvals, wave_reports
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import AgentProgress
from byteor_cloud.errors import Conflict


class _WaveForm(ActForm):
    comment = forms.CharField(max_length=500, required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))
    digest = forms.CharField(widget=forms.HiddenInput)  # of the report that the person sees

    def offer(self, row: Approval, held: frozenset[P]) -> None:
        if row.wave_report is not None:
            self.fields["digest"].initial = row.wave_report.digest
            self.fields["comment"].help_text = row.wave_report.summary


def _check(row: Approval) -> None:
    """Raise Conflict if the approval is not open, or if it is not of a wave."""
    approvals.check_open(row)
    if row.wave is None:
        raise Conflict("This request is not for a wave.", code="approval.no_wave")


def _decide(decision: str) -> Any:
    def run(row: Approval, context: ActContext) -> Approval | Refusal:
        _check(row)
        try:
            return approvals.decide(
                row, decision=decision, user=context.user, comment=context.values.get("comment", ""),
                digest=context.values.get("digest"), actor=context.actor,
            )  # fmt: skip
        except Conflict as error:
            if error.reason != "approval.outdated" or row.rollout is None or row.wave is None:
                raise
            now = wave_reports.read_report(row.rollout, row.wave).summary
            return Refusal(f"{error.detail} {now}", row_url(row.rollout), "Open the deployment")

    return run


APPROVE_WAVE = Act(
    name="approve_wave",
    label="Approve wave",
    done="{} given",
    explain="You approve the start of this wave. Your approval covers exactly the results of the earlier waves that "
    "you see here.",
    run=_decide("approve"),
    form=_WaveForm,
    needs=P.OPERATE_ENVIRONMENT,
    may=may_decide,
    icon=APPROVE.icon,
    applies=permitted_by(_check),
)
DENY_WAVE = Act(
    name="deny_wave",
    label="Deny wave",
    done="{} denied",
    explain="A single denial stops the deployment. If its strategy requires a rollback, the deployment is then rolled "
    "back, if possible. Give the reason in the comment, which the requester can read.",
    run=_decide("deny"),
    form=_WaveForm,
    needs=P.OPERATE_ENVIRONMENT,
    may=may_decide,
    icon=DENY.icon,
    dangerous=True,
    applies=permitted_by(_check),
)


def report_banner(row: Approval) -> dict[str, Any] | None:
    """Return the report on the earlier waves in words, and its tone; None if the approval is not for a wave."""
    report = row.wave_report
    return None if report is None else {"tone": "warn" if report.failures else "plain", "text": report.summary}


def report_of(row: Approval) -> dict[str, Any] | None:
    """Return what the earlier waves did, which a decision on the wave covers, as a bar and a panel of causes.

    Returns None if the approval is not for a wave. ``causes`` is None if no agent failed.
    """
    report = row.wave_report
    if report is None:
        return None
    counts = [(word, report.progress[word]) for word in AgentProgress if report.progress.get(word)]
    parts = [(TONES.get(word, "plain"), count) for word, count in counts]
    key = [(tone, f"{count:,}", word.replace("_", " ")) for (word, count), (tone, _) in zip(counts, parts, strict=True)]
    causes = [
        (with_note(describe_detail(each.reason, each.detail), FAILED_HOW[each.reason]), each.count)
        for each in report.failures
    ]
    panel = {"id": "causes", "title": "Why agents failed", "columns": ("Cause", "Agents"), "rows": causes}
    return {"bar": {"text": report.summary, "parts": parts, "key": key}, "causes": panel if causes else None}
