"""The columns that queries return, as reported by PostgreSQL and not parsed from the SQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from django.db import connection


@dataclass
class Results:
    """Results of queries that returned rows: per query, the columns returned unchanged, and the number of rows."""

    seen: list[tuple[frozenset[str], int]] = field(default_factory=list)
    largest: int = 0  # the size of the largest value in bytes

    def __call__(self, execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Execute a statement and record its result. Django calls this."""
        done = execute(sql, params, many, context)
        result = context["cursor"].cursor.pgresult
        if result is not None and result.nfields and result.ntuples:
            columns = range(result.nfields)
            found = {(result.ftable(each), result.ftablecol(each)) for each in columns} & _columns().keys()
            self.seen.append((frozenset(_columns()[each] for each in found), result.ntuples))
            values = (result.get_value(row, each) for row in range(result.ntuples) for each in columns)
            self.largest = max(self.largest, *(len(value or b"") for value in values))
        return done


@contextmanager
def results() -> Iterator[Results]:
    """Record the results of the queries that Django sends in the block."""
    noted = Results()
    _columns()
    with connection.execute_wrapper(noted):
        yield noted


@cache
def _columns() -> dict[tuple[int, int], str]:
    """Return all columns as ``table.column``, keyed by PostgreSQL's numbers of the table and the column."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.oid::bigint, a.attnum, c.relname || '.' || a.attname FROM pg_attribute a"
            " JOIN pg_class c ON c.oid = a.attrelid"
            " WHERE a.attnum > 0 AND c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace"
        )
        return {(table, number): name for table, number, name in cursor.fetchall()}
