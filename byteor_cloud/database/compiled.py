"""Queries in which only the values vary, compiled to SQL once instead of at each call.

Most API requests run such queries for their credential, scope and roles. Django takes several times as long to compile
one as PostgreSQL takes to run it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connection, connections
from django.db.models import Model, QuerySet

from byteor_cloud.database.together import Statement, column_reader

# Placeholders for the values while the query is compiled. No query contains them as constants.
_STAND_INS: dict[type, Callable[[int], Any]] = {
    UUID: lambda number: UUID(int=(0x5AFE << 112) + number),
    str: lambda number: f"\x01value {number}",
    datetime: lambda number: datetime(1, 1, 1, microsecond=number, tzinfo=UTC),
}
# All callers share a compiled query. If it contained an id, a time or a string of the first caller, other callers would
# get that caller's rows. It may therefore contain only constants that are written in code, such as statuses.
_WORD = re.compile("[a-z_]{0,40}")
_LARGEST_NUMBER = 99
_VALUE_IN_SQL = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}|[0-9]{4}-[0-9]{2}-[0-9]{2}|\x01value ")


def _is_code_constant(constant: object) -> bool:
    """Return whether a constant in a query looks like it is written in code, such as a status or a rank."""
    match constant:
        case None | bool() | Enum() | timedelta():
            return True
        case int():
            return abs(constant) <= _LARGEST_NUMBER
        case str():
            return _WORD.fullmatch(constant) is not None
        case list() | tuple():
            return all(_is_code_constant(each) for each in constant)
    return False  # ids, times, JSON, bytes and fractions


class CompiledQuery[Row: Model]:
    """A query that ``build`` creates from values of the types ``kinds``. It is compiled at the first call.

    ``build`` may use a value only as a value in the SQL. Everything else is fixed at the first call. ``build`` must use
    each value, unless ``uses_all`` is false.

    Compilation fails if a constant looks like a value. Short lower-case words and small numbers are allowed, because
    constants in code (statuses, ranks) have this form.
    """

    def __init__(self, build: Callable[..., QuerySet[Row, Any]], *kinds: type, uses_all: bool = True) -> None:
        self._build, self._uses_all = build, uses_all
        self._stand_ins = [_STAND_INS[kind](number) for number, kind in enumerate(kinds)]
        self._compiled: tuple[type[Row], Any, str, list[Any]] | None = None
        self._readers: list[Callable[[Any], Any] | None] | None = None

    def rows(self, *values: Any) -> list[Row]:
        """Run the query with ``values``, which must be of the declared types, and return its rows."""
        model, compiler, sql, slots = self._once()
        if not sql:
            return []
        bound = _Bound(compiler, sql, _filled(slots, values))
        return list(QuerySet(model, query=bound))  # type: ignore[arg-type]  # ``_Bound`` replaces a Query

    def tuples(self, *values: Any) -> list[tuple[Any, ...]]:
        """Run the query with ``values``, and return its rows as tuples of database values."""
        _, _, sql, slots = self._once()
        if not sql:
            return []
        with connection.cursor() as cursor:
            cursor.execute(sql, _filled(slots, values))
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def statement(self, *values: Any) -> Statement:
        """Return the query with ``values``, to be read together with others. Its rows are like those of ``tuples``.

        Raises TypeError if a column cannot be read together with others.
        """
        _, compiler, sql, slots = self._once()
        if not sql:
            return Statement("", (), ())
        if self._readers is None:
            self._readers = [column_reader(column.output_field) for column, *_ in compiler.select]
        return Statement(sql, _filled(slots, values), self._readers)

    def first(self, *values: Any) -> Row | None:
        """Return the first row, or None."""
        return next(iter(self.rows(*values)), None)

    def _once(self) -> tuple[type[Row], Any, str, list[Any]]:
        if self._compiled is None:
            self._compiled = self._compile()
        return self._compiled

    def _compile(self) -> tuple[type[Row], Any, str, list[Any]]:
        queryset = self._build(*self._stand_ins)
        compiler = queryset.query.get_compiler(queryset.db)
        try:
            sql, params = compiler.as_sql()
        except EmptyResultSet:
            return queryset.model, compiler, "", []
        converters = compiler.get_converters([column for column, *_ in compiler.select[: compiler.col_count]])
        compiler.get_converters = lambda _: converters
        numbers = range(len(self._stand_ins))
        slots = [(next((n for n in numbers if self._stand_ins[n] == param), None), param) for param in params]
        if self._uses_all and not {number for number, _ in slots}.issuperset(numbers):
            raise TypeError("the query does not use each of its values")
        if _VALUE_IN_SQL.search(sql) or not all(_is_code_constant(param) for number, param in slots if number is None):
            raise TypeError("the query would keep a value of the first call")
        return queryset.model, compiler, sql, slots


def _filled(slots: list[Any], values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(constant if number is None else values[number] for number, constant in slots)


class _Bound:
    """A compiled query with its values. A QuerySet uses it instead of a ``Query`` that it would have to compile."""

    def __init__(self, compiler: Any, sql: str, params: tuple[Any, ...]) -> None:
        self._compiler, self._sql, self._params = compiler, sql, params

    def get_compiler(self, using: str) -> Any:
        """Return a compiler whose SQL is already known."""
        compiler = copy(self._compiler)
        compiler.connection = connections[using]
        compiler.as_sql = lambda: (self._sql, self._params)
        return compiler
