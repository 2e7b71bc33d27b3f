"""Several queries that do not depend on each other, read with one statement.

A page that shows small facts from ten tables would otherwise wait ten times for the database. A ``Plan`` is a generator
that yields queries, receives their rows, and returns its result. Plans that run together share SQL statements: one for
the queries that each of them yields first, one for those that they yield second, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet

# How to turn a JSON value into what psycopg returns for a column of this type. Types in ``_SAME`` need no conversion.
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "uuid": UUID,
    "uuid[]": lambda ids: [UUID(each) for each in ids],
    "timestamp with time zone": datetime.fromisoformat,
    "jsonb": json.dumps,
}
_SAME: Final = ("varchar", "text", "boolean", "smallint", "integer", "bigint", "double precision")


class Statement(NamedTuple):
    """A query in SQL. ``columns`` converts the value of each column from JSON; None keeps the value."""

    sql: str
    parameters: Sequence[Any]
    columns: Sequence[Callable[[Any], Any] | None]


type Rows = QuerySet[Any, Any] | Statement
type Plan[T] = Generator[Sequence[Rows], list[list[Any]], T]


def run[T](plan: Plan[T]) -> T:
    """Run a plan, and return its result. Runs at most one SQL statement for each ``yield``."""
    try:
        asked = next(plan)
        while True:
            asked = plan.send(read_together(*asked))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # the type of a StopIteration's value is not known


def together(*plans: Plan[Any]) -> Plan[list[Any]]:
    """Return a plan that runs the plans at the same time, and returns their results."""
    results: list[Any] = [None] * len(plans)
    asked: dict[int, Sequence[Rows]] = {}

    def advance(number: int, found: list[list[Any]] | None) -> None:
        try:
            asked[number] = next(plans[number]) if found is None else plans[number].send(found)
        except StopIteration as end:
            results[number] = end.value

    for number in range(len(plans)):
        advance(number, None)
    while asked:
        found = iter((yield [each for tables in asked.values() for each in tables]))
        answered = {number: [next(found) for _ in tables] for number, tables in asked.items()}
        asked.clear()
        for number, rows in answered.items():
            advance(number, rows)
    return results


def read(*tables: Rows) -> Plan[list[list[Any]]]:
    """Return a plan that reads the rows of each query, and returns them."""
    found: list[list[Any]] = yield tables
    return found


class _Asked:
    """A queryset or a statement, and its rows as JSON objects."""

    def __init__(self, table: Rows) -> None:
        self.found: list[dict[str, Any]] = []
        self._table = table
        if isinstance(table, Statement):
            self.sql, self.parameters, self._columns = table
            return
        self._table = table.all()
        self._compiler = self._table.query.get_compiler(self._table.db)
        try:
            self.sql, self.parameters = self._compiler.as_sql()
        except EmptyResultSet:
            self.sql, self.parameters, self._columns = "", (), ()
            return
        self._columns = [column_reader(each.output_field) for each, *_ in self._compiler.select]

    @property
    def part(self) -> str:
        """The query as an expression whose value is the array of the rows."""
        names = ", ".join(f"c{number}" for number in range(len(self._columns)))
        return f"(SELECT json_agg(found) FROM ({self.sql}) AS found ({names}))"  # noqa: S608  Django built the SQL

    def rows(self) -> list[Any]:
        """Return the rows in the queryset's form, or as tuples for a statement."""
        raw = [tuple(map(_convert, self._columns, each.values())) for each in self.found]
        if isinstance(self._table, Statement) or not raw:
            return raw
        # The queryset makes its rows from what the database has returned, as if it had run the query itself.
        self._compiler.execute_sql = lambda *args, **options: [raw]
        self._table.query.get_compiler = lambda *args, **options: self._compiler  # type: ignore[method-assign]
        return list(self._table)


def column_reader(field: Any) -> Callable[[Any], Any] | None:
    """Return the function that converts a column's values from JSON, or None if they need no conversion.

    Raises TypeError for types that this module does not know.
    """
    kind = field.db_type(connection)
    if kind in _READ:
        return _READ[kind]
    if not kind.startswith(_SAME):
        raise TypeError(f"a column of the type {kind} cannot be read together with others")
    return None


def _convert(reader: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if reader is None or value is None else reader(value)


def read_together(*tables: Rows) -> list[list[Any]]:
    """Return the rows of each queryset and statement. Runs one SQL statement, or none if none of them can have rows.

    Querysets may be of any form, but must not have prefetches. PostgreSQL returns the rows as JSON, so each column of
    a queryset must have a type that this module knows. Raises TypeError for other columns of querysets.
    """
    asked = [_Asked(each) for each in tables]
    if needed := [each for each in asked if each.sql]:
        with connection.cursor() as cursor:
            parameters = [value for each in needed for value in each.parameters]
            cursor.execute(f"SELECT {', '.join(each.part for each in needed)}", parameters)
            for each, found in zip(needed, cursor.fetchone(), strict=True):
                each.found = found or []
    return [each.rows() for each in asked]
