"""Console pages of bisects."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from apps.artifacts.models import Bisect
from apps.console.frame import FoundBy, VisibleRowsFilter, relative_time, row_link, site
from apps.console.pages.artifacts.page import artifact_title
from apps.console.pages.artifacts.running import RunningAdmin, may_read_records
from apps.console.pages.bisects import page
from byteor_cloud.api.compute_slot import compute_for


@admin.register(Bisect, site=site)
class BisectAdmin(RunningAdmin):
    tenant = "environment"
    section = "Replays"
    found_by = FoundBy("search_insights")
    related = ("environment__project__organization", "artifact__agent", "first_bad", "last_good")
    list_display = (
        "title",
        "status",
        "outcome",
        "environment",
        "first_bad",
        "requested_by",
        "created_at",
    )
    narrow_columns = ("status", "outcome")
    not_below = frozenset({"replay.bisect"})  # the page lists the replays
    list_filter = ("status", "outcome", ("environment", VisibleRowsFilter))
    search_fields = ("requested_by", "=id")
    live_template = "console/bisect.html"

    def row_name(self, row: Bisect) -> str:
        return f"Bisect of an incident of {row.artifact.agent}"

    def page_title(self, row: Bisect) -> str:
        return self.row_name(row)

    def summary(self, request: HttpRequest, row: Bisect) -> dict[str, Any]:
        """Show the result, the difference at the first known bad version, and the verdict on each version."""
        return {
            **super().summary(request, row),
            "headline": page.bisect_headline(row),
            "strip": page.verdict_strip(row),
            "facts": [
                ("First known bad version", row_link(row.first_bad)),
                ("Last known good version before the bad one", row_link(row.last_good)),
                ("Bad if", page.predicate(row)),
                ("Monotone (bad versions only at the end)", {None: "unknown", True: "yes", False: "no"}[row.monotone]),
                ("Artifact", row_link(row.artifact, artifact_title(row.artifact))),
                ("Requested by", row.requested_by),
                ("Finished", relative_time(row.finished_at)),
            ],
            "difference": page.difference(row, may_read=may_read_records(request, row), compute=compute_for(request)),
            "panels": [page.verdicts(row)],
            "diff": row.diff,
        }
