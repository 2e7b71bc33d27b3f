"""The approvals inbox: what waits for whose decision, what it changes, and the form to decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import admin
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Value, When
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from apps.console.frame import (
    Act,
    ActContext,
    FoundBy,
    LiveAdmin,
    Panel,
    Tile,
    VisibleRowsFilter,
    relative_time,
    row_link,
    short_id,
    site,
    state_pill,
    time_left,
    with_note,
)
from apps.console.frame.acts import permitted_by
from apps.console.frame.base import granted_condition
from apps.console.frame.columns import environment_link
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.pages.changes import find_changes
from apps.console.pages.phrases import (
    agent_count,
    describe_options,
    describe_strategy,
    describe_target,
    describe_warnings,
)
from apps.fleet.models import Agent
from apps.releases.api import commands
from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.services import approvals, bundles
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import ApprovalStatus
from byteor.engine.target import ReplayTarget, Target
from byteor_cloud.api.computing_lane import compute_for

_SHOWN = 20
_NAMED = 8


def _decide(decision: str) -> Any:
    def run(row: Approval, context: ActContext) -> None:
        approvals.decide(row, decision=decision, user=context.user, comment=context.comment, actor=context.actor)

    return run


APPROVE = Act(
    name="approve",
    label="Approve",
    explain="Your approval covers exactly what is shown here, except the note, and can be used once.",
    run=_decide("approve"),
    needs=P.OPERATE_ENVIRONMENT,
    icon="check_circle",
    comment="optional",
    comment_label="Comment",
    applies=permitted_by(approvals.check_open),
)
DENY = Act(
    name="deny",
    label="Deny",
    explain="One denial is enough to deny the request. Give the reason in the comment, which the requester can read.",
    run=_decide("deny"),
    needs=P.OPERATE_ENVIRONMENT,
    icon="cancel",
    comment="required",
    comment_label="Comment",
    dangerous=True,
    applies=permitted_by(approvals.check_open),
)
REVOKE = Act.of(
    commands.revoke,
    label="Revoke",
    explain="The approval can no longer be used, and the deployment or replay that waits for it fails.",
    icon="block",
    dangerous=True,
)


def on_deployment_page(act: Act) -> Act:
    """Adapt an act on an approval for the page of the deployment that waits for the approval."""
    return replace(
        act,
        run=lambda row, context: act.run(row.approval, context),
        applies=lambda row: row.approval is not None and act.applies(row.approval),
    )


def awaiting_decision_by(request: HttpRequest) -> Q:
    """Return the condition of approvals that the user can give now.

    The user may operate the approval's environment, and has neither requested the approval nor decided on it.
    """
    user = request.user
    mine = ApprovalDecision.objects.filter(approval=OuterRef("pk"), user=user.pk)
    return (
        Q(status=ApprovalStatus.PENDING, expires_at__gt=timezone.now())
        & granted_condition(Approval, "environment", P.OPERATE_ENVIRONMENT, console_user_of(request))
        & (Q(allow_self_approval=True) | Q(requester_id__isnull=False) & ~Q(requester_id=user.pk))
        & ~Q(Exists(mine))
    )


class _AwaitingMyDecision(admin.SimpleListFilter):
    title = "for me"
    parameter_name = "for"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("me", "waiting for me")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(awaiting_decision_by(request)) if self.value() == "me" else queryset


def _deployment(row: Approval) -> Deployment | None:
    return getattr(row, "deployment", None)


def subject(row: Approval) -> str:
    """Describe what the approval is for."""
    deployment = _deployment(row)
    if deployment is not None:
        return f"{deployment.config_bundle.version} to {row.environment}"
    return f"Execute replay in {row.environment}" if row.replay_id else str(row)


def _warning_pills(row: Approval) -> str:
    """Return the warnings that a list shows beside the approval."""
    deployment = _deployment(row)
    words = ["break glass"] if row.break_glass else []
    words += ["freeze overridden"] if deployment is not None and deployment.freeze_override else []
    return format_html_join("", " {}", [(state_pill(word),) for word in words])


@admin.register(Approval, site=site)
class ApprovalAdmin(LiveAdmin):
    tenant = "environment"
    section = "Approvals"
    tabs = {"Waiting for me": "for=me"}
    found_by = FoundBy("how_to_reg")
    live_template = "console/approval.html"
    still_template = "console/approval_changes.html"
    every_s = 5
    list_before_template = "console/inbox.html"
    not_below = frozenset({"deployment.approval"})  # the facts of the page show it already
    related = ("environment__project__organization", "deployment__config_bundle__version")
    guarded = {"credential": P.OPERATE_ENVIRONMENT}
    omitted = frozenset({"requester_id"})
    reads = ("deployment__freeze_override",)
    list_display = ("asked", "status", "given", "expires", "environment", "agents", "requested")
    list_filter = (_AwaitingMyDecision, "status", "break_glass", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "spec_hash", "config_hash", "deployment__pipeline", "=id", "=replay_id")
    # Pending approvals come first, ordered by their expiry.
    ordering = (
        Case(When(status=ApprovalStatus.PENDING, then=Value(0)), default=Value(1)),
        Case(When(status=ApprovalStatus.PENDING, then="expires_at")),
        "-id",
    )
    acts = (APPROVE, DENY, REVOKE)

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        given = Count("decisions", filter=Q(decisions__decision="approve"))
        return super().narrow(queryset, console_user).annotate(count_given=given)  # type: ignore[no-any-return]

    @admin.display(description="Subject")
    def asked(self, row: Approval) -> str:
        return format_html("{}{}", subject(row), _warning_pills(row))

    @admin.display(description="Given")
    def given(self, row: Any) -> str:
        return f"{row.count_given} of {row.required_approvals}"

    @admin.display(description="Expires", ordering="expires_at")
    def expires(self, row: Approval) -> str:
        return relative_time(row.expires_at) if row.status == ApprovalStatus.PENDING else "-"

    @admin.display(description="Agents")
    def agents(self, row: Approval) -> Any:
        deployment = _deployment(row)  # and not ``target``, which may name 100,000 agents
        return "-" if deployment is None else deployment.target_count

    @admin.display(description="Requested", ordering="created_at")
    def requested(self, row: Approval) -> str:
        return with_note(row.requested_by, relative_time(row.created_at))

    def row_name(self, row: Any) -> str:
        return subject(row)

    def page_title(self, row: Any) -> str:
        return f"Approval of {'an execute' if row.replay_id else ''}{subject(row).removeprefix('Execute')}"

    def is_moving(self, row: Any) -> bool:
        return bool(row.status == ApprovalStatus.PENDING)

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what the approval is for, the decisions, and the form to decide."""
        decisions = list(row.decisions.order_by("id")[:_SHOWN])
        deployment = _deployment(row)
        return {
            **super().summary(request, row),
            "headline": _headline(row, decisions),
            "status": state_pill(row.status),
            "marks": find_warnings(deployment, row),
            "facts": _facts(row),
            "decide": decision_form(request, row, decisions),
            "hidden_acts": {"Approve", "Deny"},
            "panels": [decisions_panel(row, decisions)],
        }

    def still(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the changes that the deployment makes."""
        deployment = _deployment(row)
        if deployment is None:
            return {}
        return {
            "changes": find_changes(deployment, compute=compute_for(request)),
            "version": deployment.config_bundle.version,
        }

    def tiles(self, request: HttpRequest) -> list[Tile]:
        waiting = self.get_queryset(request).filter(status=ApprovalStatus.PENDING).count()
        url = f"{reverse('admin:releases_approval_changelist')}?status__exact=pending"
        return [Tile("Approvals waiting", waiting, url, "waiting" if waiting else "plain")]

    def panels(self, request: HttpRequest) -> list[Panel]:
        if not console_user_of(request).holds_anywhere(P.OPERATE_ENVIRONMENT):
            return []
        waiting = self.get_queryset(request).filter(awaiting_decision_by(request)).order_by("expires_at")[:8]
        rows = [
            (
                format_html("{}{}", row_link(row, subject(row)), _warning_pills(row)),
                self.given(row),
                self.agents(row),
                environment_link(row.environment),
                row.requested_by,
                relative_time(row.expires_at),
            )
            for row in waiting
        ]
        columns = ("Subject", "Given", "Agents", "Environment", "Requested by", "Expires")
        url = f"{reverse('admin:releases_approval_changelist')}?for=me"
        return [Panel("Waiting for you", url, columns, rows, "No request waits for your approval.")]


def _headline(row: Approval, decisions: list[ApprovalDecision]) -> str:
    given = sum(each.decision == "approve" for each in decisions)
    match row.status:
        case ApprovalStatus.PENDING:
            return f"Waits for approval: {given} of {row.required_approvals} given."
        case ApprovalStatus.APPROVED:
            return f"Approved by {', '.join(each.decided_by for each in decisions if each.decision == 'approve')}."
        case ApprovalStatus.DENIED:
            return f"Denied by {', '.join(each.decided_by for each in decisions if each.decision == 'deny')}."
        case ApprovalStatus.EXPIRED:
            return "Expired before it was approved."
    return "Revoked."


def find_warnings(deployment: Deployment | None, approval: Approval | None = None) -> list[tuple[str, str, list[str]]]:
    """Return the warnings about a deployment, each as tone, title and lines of text."""
    found = []
    broken = deployment.break_glass if deployment is not None else None
    if broken:
        waits = approval is not None and approval.status == ApprovalStatus.PENDING
        lines = [f"“{broken.reason}”", f"{broken.by} deployed before approval."]
        if waits and approval is not None:
            left = time_left(approval.expires_at)
            lines.append(format_html("If no other person approves the deployment, it is rolled back {}.", left))
        elif approval is not None:
            lines.append(f"The request for approval afterwards was {approval.status}.")
        found.append(("bad", "Break glass", lines))
    if deployment is not None and deployment.freeze_override:
        found.append(("warn", "Freeze window overridden", [f"“{deployment.freeze_override}”"]))
    if deployment is not None and (unchecked := describe_warnings(bundles.warnings_of(deployment.config_bundle))):
        found.append(("warn", "No parameters", unchecked))
    return found


def _facts(row: Approval) -> list[tuple[str, Any]]:
    deployment, bound = _deployment(row), row.target and row.target.bound
    facts: list[tuple[str, Any]] = []
    if deployment is not None:
        facts += [
            ("Deployment", row_link(deployment, f"{deployment.pipeline} to {row.environment}")),
            ("Version", row_link(deployment.config_bundle.version)),
            ("Config bundle", row_link(deployment.config_bundle)),
        ]
    elif row.replay_id is not None:
        facts.append(("Replay", _page_link("artifacts_replay", row.replay_id)))
    if isinstance(bound, ReplayTarget):
        facts += _replay_facts(bound)
    facts += [
        ("Environment", environment_link(row.environment)),
        ("Posture", state_pill(row.environment.posture)),
        ("Requested by", with_note(row.requested_by, relative_time(row.created_at))),
        ("Policy", _policy(row)),
        ("Expires" if row.status == ApprovalStatus.PENDING else "Expiry", time_left(row.expires_at)),
        ("Capabilities", ", ".join(row.capabilities) or "-"),
        ("Spec hash", short_id(row.spec_hash)),
        ("Config hash", short_id(row.config_hash)),
    ]
    if row.replay_id is None:
        target = bound if isinstance(bound, Target) else None
        facts += [
            ("Target", with_note(describe_target(target), _matched_agents(row))),
            ("Strategy", describe_strategy(row.strategy)),
            *describe_options(row.subject.options),
        ]
    if deployment is not None and deployment.note:
        facts.append(("Note", deployment.note))
    if row.used_at is not None:
        facts.append(("Used", relative_time(row.used_at)))
    return facts


def _page_link(name: str, pk: Any) -> str:
    """Return a link to a page by its URL name, because this app may not import the models of artifacts."""
    return format_html(
        '<a class="text-link" href="{}">{}</a>', reverse(f"admin:{name}_change", args=[pk]), short_id(pk)
    )


def _replay_facts(target: ReplayTarget) -> list[tuple[str, Any]]:
    """Return the facts of the requested execute replay."""
    pages = {
        "artifact_id": "artifacts_artifact",
        "version_id": "pipelines_version",
        "config_bundle_id": "releases_configbundle",
        "fallback_config_bundle_id": "releases_configbundle",
    }
    facts: list[tuple[str, Any]] = []
    for name, value in target.stored().items():
        label = name.removesuffix("_id").replace("_", " ").capitalize()
        if name in pages:
            facts.append((label, _page_link(pages[name], value)))
        elif isinstance(value, list):
            facts.append((label, ", ".join(map(str, value)) or "none"))
        else:
            facts.append((label, short_id(value) if name.endswith("hash") else "-" if value is None else value))
    return facts


def _matched_agents(row: Approval) -> str:
    """Return how many agents the target matched when it was requested, and the names of the first."""
    target = row.target
    if target is None or target.count is None:
        return ""
    first = Agent.objects.filter(pk__in=target.resolved[:_NAMED], environment=row.environment)
    names = list(first.order_by("pk").values_list("name", flat=True))
    others = target.count - len(names)
    more = f" and {others:,} more" if names and others > 0 else ""
    return f"{agent_count(target.count)} at the request: {', '.join(names) or 'all deleted since'}{more}"


def _policy(row: Approval) -> str:
    people = f"{row.required_approvals} " + ("people" if row.required_approvals != 1 else "person")
    return with_note(people, "the requester counts" if row.allow_self_approval else "not the requester")


def decisions_panel(row: Approval, decisions: list[ApprovalDecision]) -> dict[str, Any]:
    """Return the panel of the decisions."""
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
        "empty": "Nobody has decided yet.",
    }


def decision_form(request: HttpRequest, row: Approval, decisions: list[ApprovalDecision]) -> dict[str, Any] | None:
    """Return the decision form, or why the user cannot approve; None for users who do not operate the environment."""
    held = console_user_of(request).permissions(row.environment)
    if row.status != ApprovalStatus.PENDING or P.OPERATE_ENVIRONMENT not in held:
        return None
    if row.expires_at <= timezone.now():
        return {"why": "This request has expired."}
    if any(each.user_id == request.user.pk for each in decisions):
        return {"why": "You have decided. The request waits for other people."}
    urls = {act.name: reverse("admin:releases_approval_act", args=[row.pk, act.name]) for act in (APPROVE, DENY)}
    if row.requester_id == request.user.pk and not row.allow_self_approval:
        why = "You, or a key that you made, requested this. Another person must approve it."
        return {"why": why, "deny": urls["deny"]}
    if row.requester_id is None and not row.allow_self_approval:
        return {"why": approvals.REQUESTER_UNKNOWN, "deny": urls["deny"]}
    return {"explain": APPROVE.explain, **urls}
