"""The outcomes of the fixtures in a regression: how many there are of each kind, and a table with pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Case, QuerySet, Value, When

from apps.artifacts.models import Fixture, RegressionResult
from apps.artifacts.services.regression_details import array_length
from apps.artifacts.services.regression_headline import PENDING, Counts
from apps.console.frame import short_id, with_note
from apps.console.frame.columns import page_url, text_link
from apps.console.frame.table_pages import TablePage, page_of
from apps.releases.models import ConfigBundle, Regression
from byteor.engine.replay import FixtureOutcome as Outcome
from byteor_cloud.database.large_columns import without_large

PAGE = 25  # results per page
# Results that need attention come first, then pending ones, and equal ones last.
_ORDER = (Outcome.FAILED, Outcome.UNSTABLE, Outcome.DIFFERENT, Outcome.NOT_TESTED)
RANK = Case(
    *(When(outcome=word, then=Value(rank)) for rank, word in enumerate(_ORDER)),
    When(outcome=Outcome.EQUAL, then=Value(len(_ORDER) + 1)),
    default=Value(len(_ORDER)),
)


@dataclass(frozen=True, slots=True)
class ResultsPage(TablePage[Any]):
    """A page of a regression's results.

    ``outcome`` is the outcome to which the page is limited, or "". ``kinds`` has the number of results by outcome.
    """

    outcome: str
    kinds: list[tuple[str, int]]
    fixtures: frozenset[UUID]  # ids of the fixtures on the page that still exist


def find_page(row: Regression, counted: Counts, query: Mapping[str, str], group: str | None) -> ResultsPage:
    """Return a page of results. ``query`` may have ``outcome`` and ``page``; ``group`` is the id of a group or None."""
    kinds = [
        (str(word), counted.results[word]) for word in (*_ORDER, PENDING, Outcome.EQUAL) if counted.results.get(word)
    ]
    outcome = query.get("outcome", "")
    if outcome not in dict(kinds):
        outcome = ""
    rows: QuerySet[Any] = RegressionResult.objects.filter(regression=row)
    if outcome:
        rows = rows.filter(outcome=None if outcome == PENDING else outcome)
    if group is not None:
        rows = rows.filter(verdict__groups__contains=[{"id": group}])
        total = rows.count()
    else:
        total = counted.results.get(outcome, 0) if outcome else sum(counted.results.values())
    page, start = page_of(query.get("page", ""), total, PAGE)
    # Select the page's keys first. Then, without ``group``, the database reads only the verdicts of these results.
    keys = rows.order_by(RANK, "pk").values("pk")[start : start + PAGE]
    shown = RegressionResult.objects.filter(pk__in=keys).select_related("verdict").defer("verdict__groups")
    found = list(shown.annotate(groups=array_length("verdict__groups")).order_by(RANK, "pk")) if total else []
    live = Fixture.objects.filter(pk__in={each.fixture_id for each in found}).values_list("pk", flat=True)
    return ResultsPage(
        found, total, start + 1 if found else 0, page, outcome, kinds, frozenset(live) if found else frozenset()
    )


def reason(result: Any) -> str:
    """Return why a fixture has its outcome; "" if the outcome says it. ``verdict`` must be selected."""
    verdict = result.verdict
    if result.outcome == Outcome.UNSTABLE and verdict is not None and verdict.stage:
        return f"Stage {verdict.stage} gave different results for the same records."
    text = result.error or (verdict.error if verdict is not None else None) or ""
    return text[:1].upper() + text[1:]


def baseline_links(regressions: Iterable[Regression]) -> dict[str, str]:
    """Return a link to the config bundle of each baseline by config hash. Deleted ones are missing."""
    return links_to(baseline_bundles(regressions))


def baseline_bundles(regressions: Iterable[Regression]) -> QuerySet[ConfigBundle]:
    """Return the config bundles of the baselines with their versions."""
    ids = {each["config_bundle_id"] for row in regressions for each in row.baselines}
    return without_large(ConfigBundle.objects.select_related("version").filter(pk__in=ids))


def links_to(bundles: Iterable[ConfigBundle]) -> dict[str, str]:
    """Return a link to each config bundle by config hash."""
    return {
        each.config_hash: text_link(page_url(ConfigBundle, "change", each.pk), f"{each.version}, {each}")
        for each in bundles
    }


def link_baseline(links: Mapping[str, str], config_hash: str | None) -> str:
    """Return a link to a baseline, or its short hash if it was deleted. None stands for a golden result."""
    if config_hash is None:
        return "the golden result"
    return links.get(config_hash) or with_note(short_id(config_hash), "deleted")
