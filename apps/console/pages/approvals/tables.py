"""The approvals inbox, and the page of an approval with the form for a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.contrib import admin
from django.db.models import Case, Count, Func, IntegerField, JSONField, Q, QuerySet, TextField, Value, When
from django.db.models.functions import Cast
from django.db.models.lookups import Exact
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from apps.artifacts.services.packets import Gate
from apps.console.frame import FoundBy, LiveAdmin, VisibleRowsFilter, relative_time, site, state_pill, with_note
from apps.console.frame.bell import awaiting_decision_by
from apps.console.frame.columns import page_url, text_link
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.pages.approvals import packet
from apps.console.pages.approvals.accepting import ACCEPT
from apps.console.pages.approvals.deciding import APPROVE, DENY, REMIND, REVOKE
from apps.console.pages.approvals.facts import (
    approval_facts,
    deployment_of,
    describe_request,
    matched_agents,
    note_of,
    replay_panel,
    subject,
    time_to_decide,
)
from apps.console.pages.approvals.form import decision_form, final_blockers
from apps.console.pages.approvals.reviewing import (
    CAN_APPROVE,
    Reviewing,
    ask_others,
    plan_reviewing,
    reviewers_panel,
    too_few,
)
from apps.console.pages.approvals.waves import APPROVE_WAVE, DENY_WAVE, report_banner, report_of
from apps.console.pages.deployments.warnings import find_warnings
from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.services.changes import find_changes
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ApprovalStatus
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.database.together import read, run, together


class _AwaitingMyDecision(admin.SimpleListFilter):
    title = "for me"
    parameter_name = "for"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("me", "waiting for you")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(awaiting_decision_by(console_user_of(request))) if self.value() == "me" else queryset


def warning_pills(row: Approval) -> str:
    """Return pills for a list, for break-glass and for an overridden freeze window."""
    deployment = deployment_of(row)
    words = ["break glass"] if row.break_glass else []
    words += ["freeze overridden"] if deployment is not None and deployment.freeze_override else []
    return format_html_join("", " {}", [(state_pill(word),) for word in words])


@admin.register(Approval, site=site)
class ApprovalAdmin(LiveAdmin):
    tenant = "environment"
    section = "Approvals"
    tabs = {"Waiting for you": "for=me"}
    found_by = FoundBy("how_to_reg")
    live_template = "console/approval.html"
    still_template = "console/approval_changes.html"
    rest_template = "console/approval_rest.html"
    every_s = 5
    list_before_template = "console/inbox.html"
    not_below = frozenset({"deployment.approval"})  # the page's facts link to the deployment
    related = (
        "environment__project__organization", "deployment__config_bundle__version", "rollout__config_bundle__version",
    )  # fmt: skip
    guarded = {"credential": P.OPERATE_ENVIRONMENT}
    omitted = frozenset({"requester_id"})
    reads = ("deployment__freeze_override",)
    list_display = ("subject_with_warnings", "status", "given", "expires", "environment", "agents", "requested")
    narrow_columns = ("status", "expires")
    list_filter = (_AwaitingMyDecision, "status", "break_glass", ("environment", VisibleRowsFilter))
    search_fields = (
        "requested_by",
        "spec_hash",
        "config_hash",
        "deployment__pipeline",
        "rollout__pipeline",
        "=id",
        "=replay_id",
    )
    # Pending approvals come first, ordered by their expiry.
    ordering = (
        Case(When(status=ApprovalStatus.PENDING, then=Value(0)), default=Value(1)),
        Case(When(status=ApprovalStatus.PENDING, then="expires_at")),
        "-id",
    )
    acts = (APPROVE, ACCEPT, DENY, APPROVE_WAVE, DENY_WAVE, REMIND, REVOKE)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        # As in ``reviewers.find_consents``, only consents of reviewers count if there are reviewers.
        user_id = Func(Cast("decisions__user_id", TextField()), function="to_jsonb", output_field=JSONField())
        listed = Func("reviewers", function="jsonb_array_length", output_field=IntegerField())
        counts = Q(decisions__decision="approve") & (Q(Exact(listed, 0)) | Q(reviewers__contains=user_id))
        given = Count("decisions", filter=counts)
        return super().narrow(queryset, console_user).annotate(count_given=given)  # type: ignore[no-any-return]

    @admin.display(description="Subject")
    def subject_with_warnings(self, row: Approval) -> str:
        return format_html("{}{}", subject(row), warning_pills(row))

    @admin.display(description="Approvals")
    def given(self, row: Any) -> str:
        return f"{row.count_given} of {row.required_approvals}"

    @admin.display(description="Expires", ordering="expires_at")
    def expires(self, row: Approval) -> str:
        return relative_time(row.expires_at) if row.status == ApprovalStatus.PENDING else "-"

    @admin.display(description="Agents")
    def agents(self, row: Approval) -> Any:
        deployment = row.rollout or deployment_of(row)  # instead of ``target``, which may list 100,000 agents
        return "-" if deployment is None else deployment.target_count

    @admin.display(description="Requested", ordering="created_at")
    def requested(self, row: Approval) -> str:
        return with_note(row.requested_by, relative_time(row.created_at))

    def row_name(self, row: Any) -> str:
        return subject(row)

    def page_title(self, row: Any) -> str:
        if row.wave is not None:
            return f"Approval of {subject(row).replace('Wave', 'wave', 1)}"
        return f"Approval of {'an execute' if row.replay_id else ''}{subject(row).removeprefix('Execute')}"

    def is_moving(self, row: Any) -> bool:
        return bool(row.status == ApprovalStatus.PENDING)

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what was tested, the form for a decision, the decisions, and the approval's facts."""
        deployment = deployment_of(row)
        reviewing, (agents,), found = run(
            together(plan_reviewing(request, row), read(matched_agents(row)), packet.plan(request, row, deployment))
        )
        decisions, gate = reviewing.decisions, None if found is None else found.gate
        left = time_to_decide(row)
        reviewing = replace(reviewing, can=_what_people_can(deployment, gate))
        ask = ask_others(request, reviewing)
        return {
            **super().summary(request, row),
            "headline": _headline(reviewing),
            "request": describe_request(row, left),
            "note": note_of(row),
            "status": state_pill(row.status),
            "packet": deployment and packet.banner(deployment, found),
            "report": report_banner(row),
            "marks": [*_warnings(row), *_replaced(row), *too_few(reviewing)],
            "bar": packet.bar(found),
            "facts": approval_facts(row, agents, left),
            "decide": decision_form(request, row, deployment, decisions, gate),
            "ask": ask,
            "hidden_acts": {act.label for act in self.acts if ask is not None or act is not REMIND},
            "menu": {REVOKE.label},
            "panels": [reviewers_panel(reviewing, with_names=ask is None)],
            "still_version": packet.version(found),
        }

    def still(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the changes and the packet; for a wave, the changes and the report; for a replay, what it would do."""
        if row.rollout is not None:
            changes = find_changes(row.rollout, compute=compute_for(request))
            return {"report": report_of(row), "changes": changes, "version": row.rollout.config_bundle.version}
        deployment = deployment_of(row)
        if deployment is None:
            return {"panels": [replay_panel(row)] if row.replay_id else []}
        return packet.show(request, deployment, compute=compute_for(request))


def _what_people_can(deployment: Deployment | None, gate: Gate | None) -> str:
    """Return the predicate of the sentence about the people who can decide, such as "can approve this request"."""
    if deployment is not None and final_blockers(deployment, gate):
        return "can approve this request when the replay gate no longer blocks it"
    return CAN_APPROVE if gate is None or not gate.blockers else "can accept the differences and approve this request"


def _warnings(row: Approval) -> list[tuple[str, str, list[str]]]:
    """Return the warnings about the deployment that the approval or its wave belongs to."""
    if row.rollout is not None:
        return find_warnings(row.rollout, row.rollout.approval)
    return find_warnings(deployment_of(row), row)


def _replaced(row: Approval) -> list[tuple[str, str, list[str]]]:
    """Return a note with a link if the deployment has a newer approval, for the same wave or a later one."""
    hold = None if row.rollout is None else row.rollout.wave_hold
    if hold is None or hold.approval_id in {None, row.pk}:
        return []
    link = text_link(page_url(Approval, "change", hold.approval_id), "Open the new request")
    text = "There is a newer request, for this wave or a later one."
    return [("warn", "Newer request", [format_html("{} {}", text, link)])]


def _headline(found: Reviewing) -> str:
    row, decisions = found.row, found.decisions
    match row.status:
        case ApprovalStatus.PENDING:
            return f"Waiting for approval: {found.given} of {row.required_approvals} given."
        case ApprovalStatus.APPROVED:
            return _by("Approved", found.consents)
        case ApprovalStatus.DENIED:
            return _by("Denied", [each for each in decisions if each.decision == "deny"])
        case ApprovalStatus.EXPIRED:
            return "Expired before it was approved."
    return "Revoked."


def _by(word: str, decisions: Sequence[ApprovalDecision]) -> str:
    """Return the sentence. It names nobody if no decision that counts was read."""
    names = ", ".join(each.decided_by for each in decisions)
    return f"{word} by {names}." if names else f"{word}."
