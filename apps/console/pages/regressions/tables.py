"""Console pages of regressions."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from apps.artifacts.api import commands
from apps.artifacts.services.regression_details import read_overview
from apps.console.frame import Act, FoundBy, VisibleRowsFilter, site
from apps.console.pages.artifacts.running import RunningAdmin, may_read_records
from apps.console.pages.regressions import page
from apps.console.pages.regressions.results import baseline_links, count_results, find_page
from apps.releases.models import Regression

CANCEL = Act.of(
    commands.cancel_regression,
    name="cancel",
    label="Cancel",
    done="{} canceled",
    explain="The test stops. Verdicts that it has computed are kept, and another regression finds them again.",
    icon="cancel",
    comment="optional",
)


@admin.register(Regression, site=site)
class RegressionAdmin(RunningAdmin):
    tenant = "environment"
    section = "Fixtures"
    found_by = FoundBy("difference")
    hint = "To create one, open a draft, a version or a config bundle and press “Test against fixtures”."
    related = ("environment__project__organization", "config_bundle__version", "version", "draft")
    list_display = ("candidate", "status", "pipeline", "fixtures", "environment", "requested_by", "created_at")
    sortable_by = ("status", "pipeline", "created_at")
    list_filter = ("status", "pipeline", ("environment", VisibleRowsFilter))
    search_fields = ("pipeline", "requested_by", "=id")
    # The page shows these in another form, and ``spec_kv`` may be large.
    omitted = frozenset({"groups", "summary", "baselines", "not_tested", "spec_kv"})
    acts = (CANCEL,)
    live_template, still_template = "console/regression.html", "console/regression_groups.html"

    @admin.display(description="Candidate")
    def candidate(self, row: Regression) -> str:
        return page.candidate(row)

    def row_name(self, row: Regression) -> str:
        return f"Test of {page.candidate(row)}"

    def page_title(self, row: Regression) -> str:
        return f"Regression of {page.candidate(row)}"

    def summary(self, request: HttpRequest, row: Regression) -> dict[str, Any]:
        """Show the result in words or the progress, and what was compared."""
        overview = read_overview(row)
        return {
            **super().summary(request, row),
            "headline": page.headline(row, count_results(row), overview.groups),
            "bar": page.progress_bar(row),
            "compared": page.compared_panel(row, baseline_links([row]), overview),
            "facts": page.facts(row),
        }

    def still(self, request: HttpRequest, row: Regression) -> dict[str, Any]:
        """Show the groups of differences, the outcome of each fixture, and the summary as Markdown."""
        links, counted = baseline_links([row]), count_results(row)
        results = find_page(row, counted, request.GET, page.chosen_group(request))
        total = read_overview(row).groups
        return {
            "groups": page.groups_panel(request, row, total, links, may_read=may_read_records(request, row)),
            "results": page.results_table(results, links),
            "markdown": row.summary,
        }
