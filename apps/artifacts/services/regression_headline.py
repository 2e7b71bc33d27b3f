"""The result of a regression as text, and the numbers of results and fixtures with each outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count, QuerySet

from apps.artifacts.models import RegressionResult
from apps.releases.models import Regression
from byteor.engine.counted import count_of
from byteor.engine.machines import RegressionStatus
from byteor.engine.replay import FixtureOutcome

PENDING = "pending"  # the word for a result whose outcome is not known yet


@dataclass(frozen=True, slots=True)
class Counts:
    """For each outcome: the number of results with it, and the number of fixtures with at least one such result."""

    results: Mapping[str, int]
    fixtures: Mapping[str, int]


def count_results(row: Regression) -> Counts:
    """Count the results of a regression."""
    return counts_of(counted_results(row.pk))


def counted_results(regression_id: UUID | None) -> QuerySet[RegressionResult, Any]:
    """Return the outcomes of a regression, each with the number of results and of fixtures."""
    rows = RegressionResult.objects.filter(regression=regression_id).values("outcome").order_by()
    return rows.annotate(results=Count("pk"), fixtures=Count("fixture_id", distinct=True))


def counts_of(counted: Iterable[Mapping[str, Any]]) -> Counts:
    """Return the counts of a regression's results. ``counted`` are the rows of ``counted_results``."""
    by_outcome = {each["outcome"] or PENDING: each for each in counted}
    return Counts(
        {word: each["results"] for word, each in by_outcome.items()},
        {word: each["fixtures"] for word, each in by_outcome.items()},
    )


def describe_result(row: Regression, counted: Counts, groups: int) -> str:
    """Return the result of a regression as text, or its progress. ``groups`` is the number of groups."""
    match row.status:
        case RegressionStatus.QUEUED:
            return "Waiting for a worker."
        case RegressionStatus.RUNNING:
            verb = "is" if row.progress_total == 1 else "are"
            return f"{row.progress_done:,} of {count_of(row.progress_total, 'verdict')} {verb} known."
    if row.error:
        return f"{row.error[:1].upper()}{row.error[1:]}".rstrip(".") + "."
    if row.vacuous:
        return f"Nothing was tested: {why_vacuous(row)}."
    failed, unstable = (counted.fixtures.get(word, 0) for word in (FixtureOutcome.FAILED, FixtureOutcome.UNSTABLE))
    parts = [f"{count_of(failed, 'fixture')} failed"] if failed else []
    parts += [f"{count_of(unstable, 'fixture')} {'is' if unstable == 1 else 'are'} unstable"] if unstable else []
    if different := counted.fixtures.get(FixtureOutcome.DIFFERENT):
        what = f"{count_of(groups, 'group')} of differences" if groups else "Differences"
        parts.append(f"{what} on {different:,} of {count_of(row.fixtures, 'fixture')}")
    if not parts:
        tested = counted.fixtures.get(FixtureOutcome.EQUAL, 0)
        parts.append(f"No differences on {count_of(tested, 'fixture')}")
    if left := counted.results.get(FixtureOutcome.NOT_TESTED):
        parts.append(f"{count_of(left, 'comparison')} {'was' if left == 1 else 'were'} not tested")
    return f"{'. '.join(parts)}."


def why_vacuous(row: Regression) -> str:
    """Return why a finished regression tested nothing, as a clause."""
    if not row.fixtures:
        return f"the pipeline {row.pipeline} had no fixtures to test"
    if not row.progress_total:
        return "there was no configuration to compare with, and no fixture had a golden result"
    return "the fixtures were changed or are no longer available, or the baselines were deleted or cannot run"
