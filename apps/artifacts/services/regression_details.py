"""The results and the groups of differences of a regression as JSON data, limited to the size of a response."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any, Final

from django.db import connection
from django.db.models import F, Func, IntegerField, JSONField, QuerySet, Value
from django.db.models.functions import Coalesce

from apps.artifacts.models import Artifact, RegressionResult, Verdict, VerdictExample
from apps.releases.models import Regression
from byteor.engine.replay import FixtureOutcome

MAX_BYTES = 4 * 1024 * 1024 - 128 * 1024
"""The size limit of the JSON of the details. It leaves room for the other members of a response of 4 MiB."""
_COLUMNS = ("fixture_id", "fixture_name", "baseline", "outcome", "error", "stage", "verdict_id")
_PAYLOADS = ("before", "after")
# The examples of groups, in the order of the groups. ``is_shown`` says whether all examples up to this one fit into the
# limit; later examples have no payloads. Verdicts are shared in an organization, so an example may be of another
# environment's artifact. It is shown only where the environment has the same capture.
_EXAMPLES: Final = f"""
    SELECT number, is_shown, CASE WHEN is_shown THEN example ELSE example - 'before' - 'after' END
    FROM (
        SELECT wanted.number, found.example,
            sum(octet_length(found.example::text)) OVER (ORDER BY wanted.number) <= %(limit)s AS is_shown
        FROM unnest(%(verdicts)s::uuid[], %(groups)s::text[]) WITH ORDINALITY AS wanted (verdict, group_id, number)
        JOIN {VerdictExample._meta.db_table} AS found
            ON found.verdict_id = wanted.verdict AND found."group" = wanted.group_id
        JOIN {Artifact._meta.db_table} AS shown ON shown.id = found.artifact_id
        WHERE EXISTS (
            SELECT FROM {Artifact._meta.db_table} AS own
            WHERE own.environment_id = %(environment)s AND own.content_hash = shown.content_hash
        )
    ) AS examples
    ORDER BY number
"""  # noqa: S608  the names of tables


@dataclass(frozen=True, slots=True)
class Details:
    """The results and the groups of a regression, both as JSON data.

    ``is_truncated`` says whether payloads, groups or results are left out because of the size limit. ``next_after`` is
    the ``after`` with which to read the next results, and None if there are no further results.
    """

    results: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    is_truncated: bool
    next_after: int | None


def read_details(
    row: Regression, *, with_payloads: bool, group: str | None = None, after: int | None = None, limit: int = MAX_BYTES
) -> Details:
    """Return the results and the groups of a regression.

    With ``group``, returns only this group and the results that show it. With ``after``, which is the number of results
    to skip, returns no groups, so that all results can be read in parts. If the JSON would have more than ``limit``
    bytes, first the payloads of the later examples are left out, then the last results, and then the last groups.
    Without ``with_payloads``, no example has payloads.
    """
    wanted = [each for each in row.groups if after is None and (group is None or each["id"] == group)]
    found = prefix(wanted, limit)
    room = limit - sum(map(size_of, found))
    results, has_more = _read_results(row, group, after or 0, room)
    room = room - sum(map(size_of, results)) if with_payloads and not has_more else 0
    shown, has_all = with_examples(row, found, room)
    is_truncated = len(found) < len(wanted) or has_more or (with_payloads and not has_all)
    return Details(results, shown, is_truncated, (after or 0) + len(results) if has_more else None)


def with_examples(
    row: Regression, groups: Sequence[Mapping[str, Any]], limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Return stored groups of a regression with their examples, and whether no payload was left out.

    An example is None if it is not available (see ``_read_examples``). The examples that have payloads
    have at most ``limit`` bytes of JSON together. The payloads of later examples are None.
    """
    found = _read_examples(row, groups, limit)
    shown = [
        {**{name: value for name, value in each.items() if name != "verdict_id"}, "example": example}
        for each, (_, example) in zip(groups, found, strict=True)
    ]
    return shown, all(is_shown for is_shown, _ in found)


@dataclass(frozen=True, slots=True)
class Overview:
    """The number of a regression's groups, the number of untested configurations, and the first 20 of the latter."""

    groups: int
    untested_count: int
    untested: list[dict[str, Any]]


def read_overview(row: Regression) -> Overview:
    """Return an overview of a regression."""
    columns = (array_length("groups"), array_length("not_tested"), _path("not_tested", "$[0 to 19]"))
    return Overview(*Regression.objects.values_list(*columns).get(pk=row.pk))


def read_groups(
    row: Regression, *, first: int, count: int, with_payloads: bool, group: str | None = None, limit: int = MAX_BYTES
) -> list[dict[str, Any]]:
    """Return up to ``count`` groups of a regression from position ``first`` on, or only the group with id ``group``.

    Each group has its ``example``, or None if it is not available.
    The examples that have payloads have at most ``limit`` bytes of JSON together. The payloads of later examples are
    None, and without ``with_payloads`` all payloads are None.
    """
    chosen = first_groups(count, first) if group is None else _path("groups", f"$[*] ? (@.id == {json.dumps(group)})")
    found: list[dict[str, Any]] = Regression.objects.values_list(chosen, flat=True).get(pk=row.pk)
    return with_examples(row, found, limit if with_payloads else 0)[0]


def first_groups(count: int, first: int = 0) -> Func:
    """Return an expression for up to ``count`` stored groups of a regression from the position ``first`` on."""
    return _path("groups", f"$[{first} to {first + count - 1}]")


def _path(column: str, path: str) -> Func:
    """Return an expression for the values at a JSON path in a column, as an array."""
    as_path = Func(Value(path), template="%(expressions)s::jsonpath")
    return Func(F(column), as_path, function="jsonb_path_query_array", output_field=JSONField())


def array_length(column: str) -> Func:
    """Return an expression for the number of items of the array in a JSON column."""
    return Func(F(column), function="jsonb_array_length", output_field=IntegerField())


def size_of(value: Any) -> int:
    """Return the size of a value's JSON in bytes, with a separator. A time counts as a text."""
    return len(json.dumps(value, ensure_ascii=False, default=str).encode()) + 1


def prefix[T](rows: Sequence[T], limit: int) -> list[T]:
    """Return the first rows, as many as fit into the limit."""
    sizes = accumulate(map(size_of, rows))
    return [row for row, _ in zip(rows, takewhile(lambda size: size <= limit, sizes), strict=False)]


def _read_results(row: Regression, group: str | None, after: int, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Skip ``after`` results. Return those of the next ones that fit into the limit, and whether there are more."""
    found = RegressionResult.objects.filter(regression=row).order_by("pk")
    if group is not None:
        found = found.filter(verdict__groups__contains=[{"id": group}])
    # A verdict may have 1,000 groups. Their stored size shows how many verdicts to read, without reading them.
    size = Func(F("verdict__groups"), function="pg_column_size", output_field=IntegerField())
    # The error of a result is that of its verdict, unless the result has no stored verdict.
    reason, stage = Coalesce("error", "verdict__error"), F("verdict__stage")
    columns = (reason if name == "error" else stage if name == "stage" else F(name) for name in _COLUMNS)
    rows = list(found.values_list(*columns, size)[after:])
    shown = [dict(zip(_COLUMNS, map(_as_json, each), strict=False)) for each in rows]
    sizes = accumulate(size_of(result) + (each[-1] or 0) for result, each in zip(shown, rows, strict=True))
    results = [result for result, _ in zip(shown, takewhile(lambda total: total <= limit, sizes), strict=False)]
    ids = _group_ids({each["verdict_id"] for each in results if each["outcome"] == FixtureOutcome.DIFFERENT})
    for each in results:
        each["groups"] = ids.get(each.pop("verdict_id"), [])
    kept = prefix(results, limit)
    return kept, len(kept) < len(rows)


def _as_json(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _group_ids(verdicts: Iterable[str]) -> Mapping[str, list[str]]:
    """Return the ids of each verdict's groups."""
    ids = _path("groups", "$[*].id")
    rows: QuerySet[Any, tuple[Any, list[str]]] = Verdict.objects.filter(pk__in=verdicts).values_list("pk", ids)
    return {str(pk): found for pk, found in rows}


def _read_examples(
    row: Regression, groups: Sequence[Mapping[str, Any]], limit: int
) -> list[tuple[bool, dict[str, Any] | None]]:
    """Return, for each group, whether its example has its payloads, and the example.

    An example is None if it is not stored, or if the regression's environment no longer has the capture. The first
    value is then True.
    """
    found: list[tuple[bool, dict[str, Any] | None]] = [(True, None)] * len(groups)
    wanted: dict[str, Any] = {
        "verdicts": [each["verdict_id"] for each in groups],
        "groups": [each["id"] for each in groups],
        "limit": limit,
        "environment": row.environment_id,
    }
    with connection.cursor() as cursor:
        cursor.execute(_EXAMPLES, wanted)
        for number, is_shown, example in cursor.fetchall():
            found[number - 1] = is_shown, {**dict.fromkeys(_PAYLOADS), **json.loads(example)}
    return found
