"""Limits that keep lists, searches, filters and counts fast even if a table has millions of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final, cast

from django.contrib import admin
from django.core.exceptions import EmptyResultSet, ValidationError
from django.core.paginator import Page, Paginator
from django.db import connection
from django.db.models import CharField, QuerySet
from django.http import HttpRequest

MOST_LISTED: Final = 10_000  # rows on all pages of a list together; filters and the search also find other rows
SEARCHED: Final = 10_000  # rows at the start of a list in which a search compares words
FOUND: Final = 1_000  # rows that a search finds by words, or by the value of a field
MOST_COUNTED: Final = 1_000  # rows that are counted exactly
_WORDS: Final = 10  # maximum number of words of a search; the rest of the text counts as the last word
_SEEN: Final = 1_000  # rows at the start of a list whose values become a filter's choices


class VisibleRowsFilter(admin.RelatedFieldListFilter):
    """A filter by a related row that offers only rows that the person may see."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the keys and names of at most 200 visible rows in the scope of the list, sorted by name."""
        related = model_admin.admin_site.get_model_admin(field.related_model)
        return sorted(
            ((str(row.pk), str(row)) for row in related.get_queryset(request)[:200]), key=lambda pair: pair[1]
        )


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # only the stubs declare it as generic
    """Pages with at most ``MOST_LISTED`` rows in total. Counting all rows of a large table is slow."""

    @cached_property
    def is_cut(self) -> bool:
        """Whether there are more rows than the pages show."""
        return self._found > MOST_LISTED

    @cached_property
    def count(self) -> int:
        """The number of rows on the pages."""
        return min(self._found, MOST_LISTED)

    def page(self, number: int | str) -> Page[Any]:
        """Return a page. For pages after the first, the keys of the page's rows are read before the rows."""
        number = self.validate_number(number)
        if number == 1:
            return super().page(number)
        rows, start = cast("QuerySet[Any]", self.object_list), (number - 1) * self.per_page
        keys = list(rows.values_list("pk", flat=True)[start : min(start + self.per_page, self.count)])
        return Page(rows.filter(pk__in=keys), number, self)

    @cached_property
    def _found(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by().values("pk")[: MOST_LISTED + 1].count()


def count_each(tables: Sequence[QuerySet[Any]]) -> list[int | str]:
    """Return the row count of each queryset. A count above ``MOST_COUNTED`` is "more than 1,000"."""
    selected, parameters = ["0"], list[Any]()
    for table in tables:
        try:
            sql, values = table.order_by().values("pk")[: MOST_COUNTED + 1].query.sql_with_params()
        except EmptyResultSet:
            selected.append("0")
        else:
            selected.append(f"(SELECT count(*) FROM ({sql}) AS found)")  # noqa: S608  Django built the SQL
            parameters += values
    if not tables:
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(selected)}", parameters)
        _, *counts = cursor.fetchone()
    return [shown_count(count) for count in counts]


def shown_count(count: int) -> int | str:
    """Return a count; "more than 1,000" if it is above ``MOST_COUNTED``."""
    return count if count <= MOST_COUNTED else f"more than {MOST_COUNTED:,}"


def search(rows: QuerySet[Any], fields: Sequence[str], text: str, *, every: bool) -> QuerySet[Any]:
    """Return the rows that have each word of the text in one of the fields, or the text as the value of a ``=`` field.

    Words are searched only in the first ``SEARCHED`` rows, unless ``every`` is true. The values of ``=`` fields are
    searched in all rows. Each of these searches finds at most ``FOUND`` rows.
    """
    found = _with_words(
        rows if every else rows[:SEARCHED], [each for each in fields if each[0] != "="], text.split(maxsplit=_WORDS - 1)
    )
    for field in fields:
        value = _whole(rows, field[1:], text) if field[0] == "=" else None
        if value is not None:
            found += rows.order_by().filter(**{field[1:]: value}).values_list("pk", flat=True)[:FOUND]
    return rows.filter(pk__in=found)


def note(rows: QuerySet[Any], found: int, *, every: bool) -> str:
    """Return a note on the limit that a search of ``rows`` may have reached, or "". The search found ``found`` rows."""
    if found >= FOUND:
        return f"A search by words or by an id finds at most {FOUND:,} rows."
    if not every and BoundedPaginator(rows, 1).is_cut:
        return f"Words are searched in the first {SEARCHED:,} rows only."
    return ""


def _with_words(rows: QuerySet[Any], fields: Sequence[str], words: Sequence[str]) -> list[Any]:
    """Return the keys of at most ``FOUND`` of these rows that contain all words.

    If ``rows`` has a limit, the subquery applies it before PostgreSQL compares texts. Without the subquery, PostgreSQL
    would compare the texts of the whole table.
    """
    if not fields or not words:
        return []
    try:
        sql, parameters = rows.values_list("pk", *fields).query.sql_with_params()
    except EmptyResultSet:
        return []
    names = [f"f{number}" for number in range(len(fields))]
    has_word = " OR ".join(f"upper({name}::text) LIKE upper(%s)" for name in names)
    patterns = [f"%{connection.ops.prep_for_like_query(word)}%" for word in words for _ in names]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT pk FROM ({sql}) AS newest (pk, {', '.join(names)})"  # noqa: S608  Django built the inner SQL
            f" WHERE {' AND '.join([f'({has_word})'] * len(words))} LIMIT {FOUND}",
            [*parameters, *patterns],
        )
        return [pk for (pk,) in cursor.fetchall()]


def _whole(rows: QuerySet[Any], field: str, text: str) -> Any:
    try:
        return rows.model._meta.get_field(field).to_python(text)
    except ValidationError:
        return None


class SeenValuesFilter(admin.AllValuesFieldListFilter):
    """A filter that offers the values of the list's first rows, and those in ``always``."""

    always: ClassVar[Sequence[str]] = ()

    def __init__(self, field: Any, request: Any, params: Any, model: Any, model_admin: Any, field_path: str) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        newest = model_admin.get_queryset(request).order_by(*model_admin.ordering)
        seen = set(newest.values_list(field_path, flat=True)[:_SEEN]) - {None, ""}
        self.lookup_choices = sorted(seen | set(self.always))  # type: ignore[assignment]  # Django accepts any iterable


def _has_words(field: Any) -> bool:
    return isinstance(field, CharField) and not field.flatchoices


class WordsFilter(admin.ChoicesFieldListFilter):
    """A filter that shows the values of an enumeration as words, such as "pending approval"."""

    def choices(self, changelist: Any) -> Iterator[Any]:
        for each in super().choices(changelist):
            yield {**each, "display": str(each["display"]).replace("_", " ")}


def _has_choices(field: Any) -> bool:
    return isinstance(field, CharField) and bool(field.flatchoices)


admin.FieldListFilter.register(_has_choices, WordsFilter, take_priority=True)
# Django's own filter would read all rows of the table.
admin.FieldListFilter.register(_has_words, SeenValuesFilter, take_priority=True)
