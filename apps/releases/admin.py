"""Config bundles, approvals, deployments in the console: where people approve, deny and roll back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from apps.releases.models import (
    AgentReport,
    Approval,
    ApprovalDecision,
    ConfigBundle,
    Deployment,
    DeploymentAgent,
    KnownBad,
    TimelineEntry,
)
from apps.releases.services import approvals, bundles, deployments, rollbacks
from apps.tenancy.console import Act, Doing, Panel, ReadOnlyAdmin, Tile, Within, ago, link, noted, pill, short, site
from apps.tenancy.console.columns import TONES, where
from apps.tenancy.console.standing import Standing
from apps.tenancy.permissions import Permission as P
from byteor_cloud.engine.machines import (
    IN_FLIGHT,
    AgentProgress,
    ApprovalEvent,
    ApprovalStatus,
    DeploymentEvent,
    DeploymentStatus,
)

_SHOWN = 20
_HASH = re.compile(r"(sha256:[0-9a-f]{10})[0-9a-f]{54}")


def _decide(decision: str) -> Any:
    def run(row: Approval, doing: Doing) -> None:
        approvals.decide(row, decision=decision, user=doing.user, comment=doing.words, actor=doing.actor)

    return run


def _can(event: Any) -> Any:
    return lambda row: row.machine.target(row.status, event) is not None


def _set_paused(paused: bool) -> Any:
    return lambda row, doing: deployments.set_paused(row, paused=paused, reason=doing.words, actor=doing.actor)


APPROVE = Act(
    "approve", "Approve", "You consent to exactly what is shown: configuration, target and strategy.",
    _decide("approve"), P.OPERATE_ENVIRONMENT, "check_circle",
    words="optional", words_label="Comment", applies=_can(ApprovalEvent.APPROVE),
)  # fmt: skip
DENY = Act(
    "deny", "Deny", "One denial denies it. Say why: the requester reads it.",
    _decide("deny"), P.OPERATE_ENVIRONMENT, "cancel",
    words="required", words_label="Comment", dangerous=True, applies=_can(ApprovalEvent.DENY),
)  # fmt: skip
REVOKE = Act(
    "revoke", "Revoke", "Consent is taken back before it is used; what waits for it fails.",
    lambda row, doing: approvals.revoke(row, actor=doing.actor), P.OPERATE_ENVIRONMENT, "block",
    dangerous=True, applies=lambda row: row.used_at is None and _can(ApprovalEvent.REVOKE)(row),
)  # fmt: skip


def _of_approval(act: Act) -> Act:
    """The same act, offered on the page of the deployment that waits for it."""
    return Act(
        act.name, act.label, act.explain,
        lambda row, doing: act.run(row.approval, doing), act.needs, act.icon,
        words=act.words, words_label=act.words_label, dangerous=act.dangerous,
        applies=lambda row: row.approval is not None and act.applies(row.approval),
    )  # fmt: skip


@admin.register(ConfigBundle, site=site)
class ConfigBundleAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Releases", "inventory_2"
    related = ("environment__project__organization", "version")
    list_display = ("name", "version", "bad", "environment", "tuning_profile", "config_hash", "created_at")
    list_filter = ("tuning_profile", ("environment", Within))
    search_fields = ("name", "version__name", "config_hash", "created_by", "=id")
    acts = (
        Act(
            "clear",
            "Clear known bad",
            "It may be deployed and rolled back to again.",
            lambda row, doing: bundles.clear(row, reason=doing.words, actor=doing.actor),
            P.OPERATE_ENVIRONMENT,
            "restart_alt",
            words="required",
            applies=lambda row: row.known_bad,
        ),
    )

    def narrow(self, queryset: QuerySet[Any], standing: Standing) -> QuerySet[Any]:
        bad = KnownBad.objects.filter(environment=OuterRef("environment"), config_hash=OuterRef("config_hash"))
        return super().narrow(queryset, standing).annotate(known_bad=Exists(bad))  # type: ignore[no-any-return]

    @admin.display(description="Known bad")
    def bad(self, row: Any) -> str:
        return pill("known bad") if row.known_bad else "-"


@admin.register(Approval, site=site)
class ApprovalAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Releases", "how_to_reg"
    related = ("environment__project__organization", "deployment")
    guarded = {"credential": P.OPERATE_ENVIRONMENT}
    omitted = frozenset({"requester_id"})
    list_display = ("__str__", "status", "pipeline", "environment", "requested_by", "expires_at", "created_at")
    list_filter = ("status", ("environment", Within))
    search_fields = ("requested_by", "spec_hash", "config_hash", "deployment__pipeline", "=id")
    acts = (APPROVE, DENY, REVOKE)

    @admin.display(description="Deployment")
    def pipeline(self, row: Approval) -> str:
        deployment = getattr(row, "deployment", None)
        return link(deployment, deployment.pipeline) if deployment else "-"

    def summary(self, request: HttpRequest, row: Approval) -> dict[str, Any]:
        """What is to be consented to, and who said what."""
        return {"facts": _approval_facts(row), "panels": [_decisions(row)]}

    def tiles(self, request: HttpRequest) -> list[Tile]:
        waiting = self.get_queryset(request).filter(status=ApprovalStatus.PENDING).count()
        url = f"{reverse('admin:releases_approval_changelist')}?status__exact=pending"
        return [Tile("Approvals waiting", waiting, url, "waiting" if waiting else "plain")]


def _approval_facts(row: Approval) -> list[tuple[str, Any]]:
    target = row.target or {}
    deployment = getattr(row, "deployment", None)
    return [
        ("Status", pill(row.status)),
        ("For", link(deployment, f"deployment of {deployment.pipeline}") if deployment else "-"),
        ("Requested by", row.requested_by),
        ("Needs", f"{row.required_approvals} approval(s)"),
        ("Expires", ago(row.expires_at)),
        ("Agents", target.get("count", "-")),
        ("Spec", short(row.spec_hash)),
        ("Config", short(row.config_hash)),
    ]


def _decisions(row: Approval) -> dict[str, Any]:
    return {
        "title": "Decisions",
        "columns": ("Who", "Decision", "Comment", "When"),
        "rows": [
            (each.decided_by, pill(each.decision), each.comment or "-", ago(each.created_at))
            for each in row.decisions.order_by("id")[:_SHOWN]
        ],
        "empty": "Nobody has decided yet.",
    }


@admin.register(Deployment, site=site)
class DeploymentAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Releases", "rocket_launch"
    related = ("environment__project__organization", "config_bundle__version", "approval", "superseded_by", "restores")
    list_display = ("pipeline", "state", "current", "environment", "config_bundle", "requested_by", "created_at")
    list_filter = ("status", "is_current", ("environment", Within))
    search_fields = ("pipeline", "requested_by", "config_hash", "bundle_hash", "config_bundle__name", "=id")
    not_below = frozenset({"deploymentagent.before", "deployment.superseded_by", "deployment.restores"})
    acts = (
        _of_approval(APPROVE),
        _of_approval(DENY),
        Act(
            "roll_back", "Roll back",
            "Each agent that was touched is offered what it ran before. The configuration is then known bad here.",
            lambda row, doing: rollbacks.start(row, reason=doing.words, actor=doing.actor),
            P.OPERATE_ENVIRONMENT, "undo", words="required", dangerous=True,
            applies=lambda row: _can(DeploymentEvent.ROLL_BACK)(row)
            and (row.is_current or row.status != DeploymentStatus.ACTIVE),
        ),
        Act(
            "pause", "Pause", "It is offered to no further agent until it is resumed.",
            _set_paused(True), P.OPERATE_ENVIRONMENT, "pause", words="optional",
            applies=lambda row: row.status == DeploymentStatus.DEPLOYING and row.paused_at is None,
        ),
        Act(
            "resume", "Resume", "It goes on where it was paused.",
            _set_paused(False), P.OPERATE_ENVIRONMENT, "play_arrow", words="optional",
            applies=lambda row: row.status == DeploymentStatus.DEPLOYING and row.paused_at is not None,
        ),
        Act(
            "abort", "Abort", "It stops where it is. What agents run already, they go on running.",
            lambda row, doing: deployments.abort(row, reason=doing.words, actor=doing.actor),
            P.OPERATE_ENVIRONMENT, "stop_circle", words="optional", dangerous=True,
            applies=_can(DeploymentEvent.ABORT),
        ),
    )  # fmt: skip

    @admin.display(description="Status", ordering="status")
    def state(self, row: Deployment) -> str:
        return pill("paused" if row.paused_at and row.status == DeploymentStatus.DEPLOYING else row.status)

    @admin.display(description="Current", ordering="is_current")
    def current(self, row: Deployment) -> str:
        return pill("current" if row.is_current else None)

    def summary(self, request: HttpRequest, row: Deployment) -> dict[str, Any]:
        """Where it stands: status, agents, approval, what happened."""
        facts: list[tuple[str, Any]] = [
            ("Status", self.state(row)),
            ("Current", "yes" if row.is_current else "no"),
            ("Environment", where(row.environment)),
            ("Version", link(row.config_bundle.version)),
            ("Config bundle", link(row.config_bundle)),
            ("Requested by", row.requested_by),
            ("Requested", ago(row.created_at)),
            ("Bundle", short(row.bundle_hash)),
        ]
        facts += [
            (label, value)
            for label, value in (
                ("Reason", row.reason and f"{row.reason.replace('_', ' ')}: {row.detail}".rstrip(": ")),
                ("Rolled back because", row.rollback_reason),
                ("Goes back to", row.restores and link(row.restores)),
                ("Superseded by", row.superseded_by and link(row.superseded_by)),
                ("Note", row.note),
            )
            if value
        ]
        panels = [_agents(row)]
        if row.approval is not None:
            panels.append({**_decisions(row.approval), "title": "Approval", "url": _url(row.approval), "link": "Open"})
        panels.append(_timeline(row))
        return {"facts": facts, "bar": _bar(row), "panels": panels}

    def tiles(self, request: HttpRequest) -> list[Tile]:
        flying = self.get_queryset(request).filter(status__in=IN_FLIGHT).count()
        url = f"{reverse('admin:releases_deployment_changelist')}?status__in={','.join(IN_FLIGHT)}"
        return [Tile("Deployments in flight", flying, url, "busy" if flying else "plain")]

    def panels(self, request: HttpRequest) -> list[Panel]:
        rows = [
            (link(row, row.pipeline), self.state(row), where(row.environment), row.requested_by, ago(row.created_at))
            for row in self.get_queryset(request).order_by("-id")[:8]
        ]
        columns = ("Pipeline", "Status", "Environment", "Requested by", "Requested")
        url = reverse("admin:releases_deployment_changelist")
        return [Panel("Latest deployments", url, columns, rows, "Nothing was deployed yet.")]


def _url(row: Any) -> str:
    return reverse(f"admin:releases_{row._meta.model_name}_change", args=[row.pk])


def _all_of(deployment: Deployment, model: str) -> str:
    return f"{reverse(f'admin:releases_{model}_changelist')}?deployment__id__exact={deployment.pk}"


def _bar(deployment: Deployment) -> dict[str, Any] | None:
    counted: Mapping[str, int] = dict(
        deployment.agents.order_by()
        .values_list("progress")
        .annotate(count=Count("pk"))
        .values_list("progress", "count")
    )
    if not counted:
        return None
    order = [progress for progress in reversed(AgentProgress) if counted.get(progress)]
    tones = [(TONES.get(progress, "plain"), counted[progress]) for progress in order]
    total = sum(counted.values())
    key = [(tone, count, progress.replace("_", " ")) for (tone, count), progress in zip(tones, order, strict=True)]
    return {
        "title": f"{total} agent{'s' if total != 1 else ''}",
        "text": ", ".join(f"{count} {word}" for _, count, word in key),
        "parts": tones,
        "key": key,
    }


def _agents(deployment: Deployment) -> dict[str, Any]:
    rows = deployment.agents.select_related("agent").order_by("-updated_at", "id")[:_SHOWN]
    return {
        "title": "Agents",
        "url": _all_of(deployment, "deploymentagent"),
        "columns": ("Agent", "Progress", "Wave", "Updated"),
        "rows": [
            (noted(link(each.agent), each.detail), pill(each.progress), each.wave, ago(each.updated_at))
            for each in rows
        ],
        "empty": f"Not offered yet; {deployment.target_count} agent(s) matched when it was requested.",
    }


def _said(detail: Mapping[str, Any]) -> str:
    parts = []
    for name, value in detail.items():
        if isinstance(value, list) and len(value) == 2:
            parts.append(f"{value[0]} → {value[1]}" if value[0] is not None else f"{name}: {value[1]}")
        elif value not in ("", None):
            parts.append(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    return "; ".join(_HASH.sub(r"\1…", part) if len(part) <= 120 else f"{part[:119]}…" for part in parts)


def _timeline(deployment: Deployment) -> dict[str, Any]:
    rows = deployment.timeline.order_by("-id")[:_SHOWN]
    return {
        "title": "Timeline",
        "url": _all_of(deployment, "timelineentry"),
        "columns": ("When", "What", "Who"),
        "rows": [
            (ago(each.created_at), noted(each.event.replace("_", " "), _said(each.detail)), each.actor) for each in rows
        ],
    }


@admin.register(KnownBad, site=site)
class KnownBadAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Releases", "dangerous"
    menu = "Known bad"
    related = ("environment__project__organization",)
    list_display = ("config_hash", "environment", "reason", "since")
    list_filter = (("environment", Within),)
    search_fields = ("config_hash", "reason")


@admin.register(ApprovalDecision, site=site)
class ApprovalDecisionAdmin(ReadOnlyAdmin):
    tenant = "approval__environment"
    icon = "thumbs_up_down"
    related = ("approval__environment__project__organization", "user")
    list_display = ("decided_by", "decision", "comment", "approval", "created_at")
    list_filter = ("decision",)
    search_fields = ("decided_by", "comment", "=id")


@admin.register(DeploymentAgent, site=site)
class DeploymentAgentAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    icon = "lan"
    related = ("deployment__environment__project__organization", "agent", "before")
    list_display = ("agent", "deployment", "progress", "action", "wave", "counted", "detail", "updated_at")
    list_filter = ("progress", "action", "counted")
    search_fields = ("agent__name", "deployment__pipeline", "detail")


@admin.register(AgentReport, site=site)
class AgentReportAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    icon = "campaign"
    related = ("deployment__environment__project__organization", "agent")
    list_display = ("agent", "deployment", "status", "accepted", "detail", "created_at")
    list_filter = ("status", "accepted")
    search_fields = ("agent__name", "bundle_hash", "detail", "=id")


@admin.register(TimelineEntry, site=site)
class TimelineEntryAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    icon = "timeline"
    menu = "Timelines"
    related = ("deployment__environment__project__organization",)
    list_display = ("created_at", "event", "actor", "deployment", "said")
    list_filter = ("event",)
    search_fields = ("event", "actor", "deployment__pipeline", "=id")

    @admin.display(description="Detail")
    def said(self, row: TimelineEntry) -> str:
        return _said(row.detail)
