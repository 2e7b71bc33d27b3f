"""Console pages of the decisions of people on approvals."""

from __future__ import annotations

from django.contrib import admin

from apps.console.frame import ReadOnlyAdmin, site
from apps.releases.models import ApprovalDecision


@admin.register(ApprovalDecision, site=site)
class ApprovalDecisionAdmin(ReadOnlyAdmin):
    tenant = "approval__environment"
    holds = "Who approved or denied what, with the comments."
    omitted = frozenset({"user"})  # decided_by names the person, whose own page not everybody may see
    related = ("approval__environment__project__organization", "user")
    list_display = ("decided_by", "decision", "comment", "approval", "created_at")
    list_filter = ("decision",)
    search_fields = ("decided_by", "comment", "=id")

    def page_title(self, row: ApprovalDecision) -> str:
        return f"Approval decision of {row.decided_by}: {row.decision}"
