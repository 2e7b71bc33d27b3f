"""Columns that may be large, and queries of many rows that do not read them.

A plan or a replay's result may have several MiB, so a list of 200 rows would need a GiB if it read all values. Every
column of JSON, text or bytes without a maximum length counts as large unless its model names it in
``bounded_columns``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, Final, override

from django.db.models import BinaryField, F, Field, Func, JSONField, Model, QuerySet, TextField

from byteor_cloud.database.connections import PausingRows

MAX_LISTED_BYTES: Final = 4096
# Measuring JSON requires rendering it as text. This preliminary limit applies to its compressed size, which PostgreSQL
# knows without reading the value. The preliminary limit is higher than ``MAX_LISTED_BYTES``, because short JSON may be
# longer in PostgreSQL's own format.
_MAX_COMPRESSED_BYTES: Final = 2 * MAX_LISTED_BYTES


class SmallValue(Func):
    """An SQL expression: the value of a column if it has at most ``MAX_LISTED_BYTES`` bytes, otherwise null."""

    arity = 1
    # Because of random(), PostgreSQL evaluates the expression after sorting, and therefore only for the page's rows.
    _JSON = (
        "CASE WHEN random() < 0 THEN NULL"
        f" WHEN pg_column_size(%(expressions)s) > {_MAX_COMPRESSED_BYTES} THEN NULL"
        f" WHEN octet_length(%(expressions)s::text) > {MAX_LISTED_BYTES} THEN NULL ELSE %(expressions)s END"
    )
    _TEXT = f"CASE WHEN octet_length(%(expressions)s) <= {MAX_LISTED_BYTES} THEN %(expressions)s END"

    @override
    def as_sql(self, compiler: Any, connection: Any, *args: Any, **options: Any) -> Any:
        template = self._JSON if isinstance(self.output_field, JSONField) else self._TEXT
        return super().as_sql(compiler, connection, template=template)


@cache
def large_columns(model: type[Model]) -> frozenset[str]:
    """Return the names of the model's unbounded columns of JSON, text or bytes."""
    return _long_columns(model) - getattr(model, "bounded_columns", frozenset())


@cache
def _long_columns(model: type[Model]) -> frozenset[str]:
    return frozenset(field.name for field in model._meta.concrete_fields if _is_long(field))


def _is_long(field: Field[Any, Any]) -> bool:
    return isinstance(field, JSONField | TextField | BinaryField) and field.max_length is None


def without_large[R: Model](queryset: QuerySet[R], shown: Collection[str] = ()) -> QuerySet[R]:
    """Defer the JSON, text and bytes columns without a maximum length, except the ``bounded_columns`` in ``shown``.

    This applies to all tables that the query selects. ``shown`` contains field paths. Reading a deferred column costs a
    query for each row.
    """
    deferred = [
        path + name
        for path, model in _selected_tables(queryset)
        for name in _long_columns(model)
        if path + name not in shown or name in large_columns(model)
    ]
    return queryset.defer(*deferred)


def with_small_values(queryset: QuerySet[Any], shown: Collection[str]) -> QuerySet[Any]:
    """Read the small values of the large columns in ``shown``. Large values are None. Call ``without_large`` before."""
    paths = sorted(
        path + name
        for path, model in _selected_tables(queryset)
        for name in large_columns(model)
        if path + name in shown
    )
    if not paths:
        return queryset
    found: QuerySet[Any] = queryset.annotate(**{_alias(path): SmallValue(F(path)) for path in paths})
    found._iterable_class = _small_value_rows(tuple(paths))  # the attribute has no public name
    return found


def each_row[R: Model](queryset: QuerySet[R]) -> Iterator[R]:
    """Yield the rows, each read by a separate query, so that work on large columns has only one row in memory."""
    for pk in list(queryset.values_list("pk", flat=True)):
        row = queryset.filter(pk=pk).first()
        if row is not None:
            yield row


def _selected_tables(queryset: QuerySet[Any]) -> Iterator[tuple[str, type[Model]]]:
    """Yield the model of each table that the query selects, and the prefix of its field paths."""
    related = queryset.query.select_related
    return _tables_below("", queryset.model, related if isinstance(related, dict) else {})


def _tables_below(path: str, model: Any, related: dict[str, Any]) -> Iterator[tuple[str, type[Model]]]:
    yield path, model
    for name, further in related.items():
        yield from _tables_below(f"{path}{name}__", model._meta.get_field(name).related_model, further)


def _alias(path: str) -> str:
    return f"small_{path.replace('__', '_')}"


@cache
def _small_value_rows(paths: tuple[str, ...]) -> type[PausingRows]:
    """Return an iteration class that stores the small values in the attributes of their columns."""

    class SmallValueRows(PausingRows):
        @override
        def __iter__(self) -> Iterator[Any]:
            for row in super().__iter__():
                for path in paths:
                    _move_value(row, path)
                yield row

    return SmallValueRows


def _move_value(row: Model, path: str) -> None:
    *parts, name = path.split("__")
    owner: Any = row
    for part in parts:
        owner = None if owner is None else owner._meta.get_field(part).get_cached_value(owner, default=None)
    value = vars(row).pop(_alias(path))
    if owner is not None:
        setattr(owner, name, value)
