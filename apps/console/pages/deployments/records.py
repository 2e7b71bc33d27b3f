"""Console pages of the records of deployments: their agents, the agents' reports, and timelines."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from apps.console.frame import Act, ReadOnlyAdmin, site
from apps.console.frame.acts import permitted_by
from apps.console.frame.columns import row_url
from apps.console.pages.deployments.previews import preview_retry_of_one
from apps.console.pages.deployments.timeline import describe_entry
from apps.releases.api import commands
from apps.releases.models import AgentReport, DeploymentAgent, TimelineEntry
from apps.releases.services import deployments


@admin.register(DeploymentAgent, site=site)
class DeploymentAgentAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    holds = "The progress of each agent in each deployment that includes it."
    related = ("deployment__environment__project__organization", "agent", "before")
    list_display = ("agent", "deployment", "progress", "action", "wave", "counted", "detail", "updated_at")
    narrow_columns = ("progress", "updated_at")
    sortable_by = ()
    list_filter = ("progress", "action", "counted")
    search_fields = ("agent__name", "deployment__pipeline", "detail")
    acts = (
        Act.of(
            commands.retry,
            label="Retry",
            done="{} retried",
            explain="The deployment is offered to this agent again.",
            preview=preview_retry_of_one,
            run=lambda row, context: deployments.retry(
                row.deployment, agents=[row.agent_id], reason=context.comment, actor=context.actor
            ),
            icon="refresh",
            comment="optional",
            applies=permitted_by(lambda row: deployments.check_retry(row.deployment, agents=[row.agent_id])),
        ),
    )

    def page_title(self, row: DeploymentAgent) -> str:
        return f"Deployment agent {row.agent} of {row.deployment.pipeline}"

    def _perform(self, request: HttpRequest, act: Act, rows: list[Model], back: str, **context: Any) -> HttpResponse:
        """Perform an act. Unless it is a bulk action, return to the page of the agent's deployment."""
        (row,) = rows if len(rows) == 1 else (None,)
        if isinstance(row, DeploymentAgent) and "bulk" not in context:
            back = row_url(row.deployment)
        return super()._perform(request, act, rows, back, **context)


@admin.register(AgentReport, site=site)
class AgentReportAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    holds = "The agents' reports about the bundles that they were offered."
    related = ("deployment__environment__project__organization", "agent")
    list_display = ("agent", "deployment", "status", "accepted", "count", "detail", "created_at", "last_at")
    narrow_columns = ("status", "last_at")
    sortable_by = ()
    list_filter = ("status", "accepted")
    search_fields = ("agent__name", "bundle_hash", "detail", "=id")

    def page_title(self, row: AgentReport) -> str:
        return f"Agent report of {row.agent}: {row.status}"


@admin.register(TimelineEntry, site=site)
class TimelineEntryAdmin(ReadOnlyAdmin):
    tenant = "deployment__environment"
    noun, nouns = "timeline entry", "timeline entries"
    holds = "The events of each deployment."
    related = (
        "deployment__environment__project__organization", "deployment__config_bundle__version",
        "deployment__restores__config_bundle__version",
    )  # fmt: skip
    reads = ("detail",)
    list_display = ("created_at", "sentence", "event", "deployment")
    narrow_columns = ("sentence",)
    sortable_by = ()
    list_filter = ("event",)
    search_fields = ("event", "actor", "deployment__pipeline", "=id")

    def page_title(self, row: TimelineEntry) -> str:
        return f"Timeline entry of {row.deployment.pipeline}: {row.event.replace('_', ' ')}"

    @admin.display(description="What happened")
    def sentence(self, row: TimelineEntry) -> str:
        return "too long for a list" if row.detail is None else describe_entry(row, row.deployment)
