"""Console pages of requested captures."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import F, QuerySet
from django.http import HttpRequest

from apps.artifacts.models import RequestedCapture
from apps.console.frame import ReadOnlyAdmin, VisibleRowsFilter, relative_time, row_link, site, state_pill
from apps.console.frame.console_user import ConsoleUser
from apps.console.pages.agents.captures import artifact_link


@admin.register(RequestedCapture, site=site)
class RequestedCaptureAdmin(ReadOnlyAdmin):
    tenant = "environment"
    holds = "The captures that were requested from agents in the last 90 days."
    related = ("environment__project__organization", "agent")
    list_display = ("title", "state", "environment", "agent", "reason", "artifact_of", "requested_by", "created_at")
    narrow_columns = ("state", "created_at")
    sortable_by = ()
    list_filter = ("status", ("environment", VisibleRowsFilter))
    search_fields = ("agent__name", "requested_by", "=id")

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().narrow(queryset, console_user).annotate(kind=F("artifact__kind"))
        return rows

    def page_title(self, row: RequestedCapture) -> str:
        return f"Requested capture of {row.agent}"

    @admin.display(description="Status")
    def state(self, row: RequestedCapture) -> str:
        return state_pill(row.status)

    @admin.display(description="Artifact")
    def artifact_of(self, row: Any) -> str:
        return artifact_link(row)

    def summary(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what was requested, and what the agent uploaded."""
        facts = [
            ("Status", state_pill(row.status)),
            ("Agent", row_link(row.agent)),
            ("Reason", row.reason),
            ("Last records", "all" if row.last_n is None else f"{row.last_n:,}"),
            ("Artifact", artifact_link(row)),
            ("Requested by", row.requested_by),
            ("Expires", relative_time(row.expires_at)),
            ("Uploaded", relative_time(row.uploaded_at)),
        ]
        return {**super().summary(request, row), "facts": facts}
