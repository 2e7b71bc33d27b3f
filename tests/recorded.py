"""Rows that were made once, so that later tests insert copies of them instead of making them again.

Making a world takes about a hundred statements, and half of the tests need one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

from django.db import connection, transaction

from apps.tenancy.models import AuditEvent

type _Rows = dict[str, list[str]]  # the rows of each table, each as JSON


class Recorded[Made]:
    """What ``make`` returns, and the rows that it inserted or changed when it was first called in this process.

    Later calls insert the same rows, with the same ids and times, and return a copy of the same object.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: Made | None = None
        self._statement = ""

    def __call__(self) -> Made:
        """Insert the rows, and return the object that describes them."""
        if self._made is None:
            return self._record()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(self._statement)
        return copy.deepcopy(self._made)

    def _record(self) -> Made:
        before = _all_rows()
        made = self._make()
        after = _all_rows()
        if may_disable_triggers():
            self._made = copy.deepcopy(made)
            self._statement = _change(_without(before, after), _without(after, before))
        return made


_recorded: dict[Hashable, Recorded[Any]] = {}


def recorded[Made](key: Hashable, make: Callable[[], Made]) -> Made:
    """Return what ``make`` returns.

    Later calls with this key, after the same events in the audit ledger, insert the same rows again.
    """
    newest = AuditEvent.objects.order_by("id").values_list("id", flat=True).last()
    made: Made = _recorded.setdefault((newest, key), Recorded(make))()
    return made


def may_disable_triggers() -> bool:
    """Return whether this role is a superuser. A database that is not ours may have given it less."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        return bool(cursor.fetchone()[0])


def _all_rows() -> _Rows:
    rows: _Rows = {}
    with connection.cursor() as cursor:
        for table in sorted(connection.introspection.table_names(cursor)):
            cursor.execute(f'SELECT to_jsonb(t)::text FROM "{table}" t')
            rows[table] = [row for (row,) in cursor]
    return rows


def _without(rows: _Rows, others: _Rows) -> _Rows:
    known = {table: set(found) for table, found in others.items()}
    return {table: [row for row in found if row not in known.get(table, ())] for table, found in rows.items()}


def _change(gone: _Rows, new: _Rows) -> str:
    """Return statements that delete the rows ``gone`` and insert the rows ``new``.

    No trigger runs meanwhile, since the rows that triggers made were recorded too.
    """
    statements = [
        f'DELETE FROM "{table}" t WHERE to_jsonb(t) IN (SELECT jsonb_array_elements({_quoted(found)}))'
        for table, found in gone.items()
        if found
    ] + [
        f'INSERT INTO "{table}" SELECT * FROM jsonb_populate_recordset(NULL::"{table}", {_quoted(found)})'
        for table, found in new.items()
        if found
    ]
    return ";".join([
        "SET LOCAL session_replication_role = replica", *statements, "SET LOCAL session_replication_role = origin",
    ])  # fmt: skip


def _quoted(rows: list[str]) -> str:
    return "'[" + ",".join(rows).replace("'", "''") + "]'"
