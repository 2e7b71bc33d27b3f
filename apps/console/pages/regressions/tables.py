"""Console pages of regressions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from django.contrib import admin
from django.http import HttpRequest

from apps.artifacts.api import commands
from apps.artifacts.services.regression_details import Overview, read_overview
from apps.artifacts.services.regression_headline import Counts, count_results, describe_result
from apps.console.frame import Act, FoundBy, VisibleRowsFilter, site
from apps.console.pages.artifacts.running import RunningAdmin, may_read_records
from apps.console.pages.regressions import page
from apps.console.pages.regressions.accepting import AcceptForm, accept_differences, may_have_open_groups
from apps.console.pages.regressions.results import baseline_links, find_page
from apps.pipelines.models import Draft, Version
from apps.releases.models import ConfigBundle, Regression

ACCEPT = Act.of(
    commands.accept,
    label="Accept differences",
    done="Differences accepted in {}",
    explain="You state that the chosen differences are wanted, in all comparisons that show them. The acceptance is "
    "valid until a deployment of this configuration becomes current in the environment. For a deployment that needs "
    "approvals, it counts only if you may accept the deployment's differences.",
    icon="check_circle",
    form=AcceptForm,
    run=accept_differences,
    applies=may_have_open_groups,
)
CANCEL = Act.of(
    commands.cancel_regression,
    name="cancel",
    label="Cancel",
    done="{} canceled",
    explain="The test stops. Verdicts that it has computed are kept, and later regressions use them again.",
    icon="cancel",
    comment="optional",
)


@admin.register(Regression, site=site)
class RegressionAdmin(RunningAdmin):
    tenant = "environment"
    section = "Fixtures"
    found_by = FoundBy("difference")
    hint = "To create one, open a draft, a version or a config bundle and press “Test against fixtures”."
    hint_links = (Draft, Version, ConfigBundle)
    related = ("environment__project__organization", "config_bundle__version", "version", "draft")
    list_display = (
        "candidate", "status", "pipeline", "tested", "fixtures", "environment", "requested_by", "created_at"
    )  # fmt: skip
    narrow_columns = ("status", "created_at")
    sortable_by = ("status", "pipeline", "created_at")
    list_filter = ("status", "pipeline", "of_current", ("environment", VisibleRowsFilter))
    search_fields = ("pipeline", "requested_by", "=id")
    # The page shows most of these in another form, and ``spec_kv`` may be large.
    omitted = frozenset({"groups", "summary", "baselines", "not_tested", "spec_kv", "newly_accepted"})
    acts = (ACCEPT, CANCEL)
    live_template, still_template = "console/regression.html", "console/regression_groups.html"

    @admin.display(description="Candidate")
    def candidate(self, row: Regression) -> str:
        return page.candidate(row)

    @admin.display(description="Tests")
    def tested(self, row: Regression) -> str:
        return "what runs now" if row.of_current else "a candidate"

    def row_name(self, row: Regression) -> str:
        return f"Test of {page.candidate(row)}"

    def page_title(self, row: Regression) -> str:
        return f"Regression of {page.candidate(row)}"

    def summary(self, request: HttpRequest, row: Regression) -> dict[str, Any]:
        """Show the result in words or the progress, and what was compared."""
        found = _read(request, row)
        return {
            **super().summary(request, row),
            "headline": describe_result(row, found.counts, found.overview.groups),
            "bar": page.progress_bar(row),
            "compared": page.compared_panel(row, found.baselines, found.overview),
            "facts": page.facts(row),
        }

    def still(self, request: HttpRequest, row: Regression) -> dict[str, Any]:
        """Show the groups of differences, the outcome of each fixture, and the summary as Markdown."""
        found, may_read = _read(request, row), may_read_records(request, row)
        results = find_page(row, found.counts, request.GET, page.chosen_group(request))
        return {
            "groups": page.groups_panel(request, row, found.overview.groups, found.baselines, may_read=may_read),
            "results": page.results_table(results, found.baselines),
            "markdown": row.summary,
        }


@dataclass(frozen=True, slots=True)
class _Found:
    """The data that both parts of a regression's page show."""

    overview: Overview
    counts: Counts
    baselines: Mapping[str, str]


def _read(request: HttpRequest, row: Regression) -> _Found:
    """Return the data that both parts of the page show. Each request reads it only once."""
    if not hasattr(request, "_regression"):
        found = _Found(read_overview(row), count_results(row), baseline_links([row]))
        request._regression = found  # type: ignore[attr-defined]  # an attribute of our own, as a cache
    return cast("_Found", request._regression)  # type: ignore[attr-defined]  # see above
