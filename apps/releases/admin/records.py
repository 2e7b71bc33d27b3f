"""Console lists of the rows behind deployments and approvals: decisions, agents, reports, timelines, known bad."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from apps.fleet.models import Agent
from apps.releases.admin import explanation_panels, history
from apps.releases.admin.phrases import describe_timeline_detail
from apps.releases.models import AgentReport, ApprovalDecision, DeploymentAgent, KnownBad, TimelineEntry
from apps.tenancy.console import ReadOnlyAdmin, VisibleRowsFilter, site


@admin.register(KnownBad, site=site)
class KnownBadAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section, icon = "Releases", "dangerous"
    menu = "Known bad"
    related = ("environment__project__organization",)
    list_display = ("config_hash", "environment", "reason", "since")
    list_filter = (("environment", VisibleRowsFilter),)
    search_fields = ("config_hash", "reason")


@admin.register(ApprovalDecision, site=site)
class ApprovalDecisionAdmin(ReadOnlyAdmin):
    tenant = "approval__environment"
    icon = "thumbs_up_down"
    omitted = frozenset({"user"})  # decided_by names the person, whose own page not everybody may see
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

    def panels_beside(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """Return the explanation and the history as panels of an agent's page."""
        return [*explanation_panels.panels(row), history.panel(row)] if isinstance(row, Agent) else []


@admin.register(AgentReport, site=site)
class AgentReportAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    icon = "campaign"
    related = ("deployment__environment__project__organization", "agent")
    list_display = ("agent", "deployment", "status", "accepted", "count", "detail", "created_at", "last_at")
    list_filter = ("status", "accepted")
    search_fields = ("agent__name", "bundle_hash", "detail", "=id")


@admin.register(TimelineEntry, site=site)
class TimelineEntryAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    icon = "timeline"
    menu = "Timelines"
    related = ("deployment__environment__project__organization",)
    list_display = ("created_at", "event", "actor", "deployment", "detail_text")
    list_filter = ("event",)
    search_fields = ("event", "actor", "deployment__pipeline", "=id")

    @admin.display(description="Detail")
    def detail_text(self, row: TimelineEntry) -> str:
        return describe_timeline_detail(row.detail)
