"""Queries of which only the values vary, compiled to SQL once instead of at each call.

Every request of the API looks up its credential, its scope and its roles by key. Compiling such a query takes Django
several times as long as PostgreSQL needs to answer it.
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

# Stand-ins for the values while the query is compiled: no query has these as constants of its own.
_STAND_INS: dict[type, Callable[[int], Any]] = {
    UUID: lambda number: UUID(int=(0x5AFE << 112) + number),
    str: lambda number: f"\x01value {number}",
    datetime: lambda number: datetime(1, 1, 1, microsecond=number, tzinfo=UTC),
}
# All callers share a compiled query. If it contained an id, a time or a text of the first caller, the others would get
# that caller's rows. So it may contain only constants that code contains, such as the names of states.
_WORD = re.compile("[a-z_]{0,40}")
_LARGEST_NUMBER = 99
_VALUE_IN_SQL = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}|[0-9]{4}-[0-9]{2}-[0-9]{2}|\x01value ")


def _is_of_code(constant: object) -> bool:
    """Return whether a constant of a query looks like one that is written in the code, such as a status or a limit."""
    match constant:
        case None | bool() | Enum() | timedelta():
            return True
        case int():
            return abs(constant) <= _LARGEST_NUMBER
        case str():
            return _WORD.fullmatch(constant) is not None
        case list() | tuple():
            return all(_is_of_code(each) for each in constant)
    return False  # ids, times, JSON, bytes, fractions, and texts that contain a value


class CompiledQuery[Row: Model]:
    """A query that ``build`` makes from values of the types ``kinds``. It is compiled at the first call.

    ``build`` may use a value only as a value in the SQL: what else depends on it would be fixed by the first call.
    It must use each value, unless ``uses_all`` is false.

    A constant that looks like a value is refused when the query is compiled. Short lower-case words and small numbers
    are not, because statuses and ranks look like this.
    """

    def __init__(self, build: Callable[..., QuerySet[Row, Any]], *kinds: type, uses_all: bool = True) -> None:
        self._build, self._uses_all = build, uses_all
        self._stand_ins = [_STAND_INS[kind](number) for number, kind in enumerate(kinds)]
        self._compiled: tuple[type[Row], Any, str, list[Any]] | None = None

    def rows(self, *values: Any) -> list[Row]:
        """Run the query with ``values``, which must be of the declared types, and return its rows."""
        model, compiler, sql, slots = self._once()
        if not sql:
            return []
        bound = _Bound(compiler, sql, _filled(slots, values))
        return list(QuerySet(model, query=bound))  # type: ignore[arg-type]  # see _Bound

    def tuples(self, *values: Any) -> list[tuple[Any, ...]]:
        """Run the query with ``values``, and return its columns as the database has them."""
        _, _, sql, slots = self._once()
        if not sql:
            return []
        with connection.cursor() as cursor:
            cursor.execute(sql, _filled(slots, values))
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

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
        if _VALUE_IN_SQL.search(sql) or not all(_is_of_code(param) for number, param in slots if number is None):
            raise TypeError("the query would keep a value of the first call")
        return queryset.model, compiler, sql, slots


def _filled(slots: list[Any], values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(constant if number is None else values[number] for number, constant in slots)


class _Bound:
    """The compiled query with its values, in the place of the ``Query`` that a QuerySet would compile."""

    def __init__(self, compiler: Any, sql: str, params: tuple[Any, ...]) -> None:
        self._compiler, self._sql, self._params = compiler, sql, params

    def get_compiler(self, using: str) -> Any:
        """Return a compiler that has its SQL already."""
        compiler = copy(self._compiler)
        compiler.connection = connections[using]
        compiler.as_sql = lambda: (self._sql, self._params)
        return compiler
