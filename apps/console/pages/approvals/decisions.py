"""Console pages of people's decisions on approvals."""

from __future__ import annotations

from django.contrib import admin

from apps.console.frame import ReadOnlyAdmin, site
from apps.releases.models import ApprovalDecision


@admin.register(ApprovalDecision, site=site)
class ApprovalDecisionAdmin(ReadOnlyAdmin):
    tenant = "approval__environment"
    holds = "People's decisions to approve or deny a request, with their comments."
    omitted = frozenset({"user"})  # decided_by names the person, and not everybody may see the person's page
    related = ("approval__environment__project__organization", "user")
    list_display = ("decided_by", "decision", "comment", "approval", "created_at")
    narrow_columns = ("decision", "created_at")
    list_filter = ("decision",)
    search_fields = ("decided_by", "comment", "=id")

    def page_title(self, row: ApprovalDecision) -> str:
        return f"Approval decision of {row.decided_by} ({row.decision})"
