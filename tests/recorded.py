"""Rows that are created once and recorded, so that later tests insert copies instead of creating them again.

Creating a world takes many statements, and many tests need a world.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from apps.tenancy.models import AuditEvent, SigningKey

type _Rows = dict[str, list[str]]  # the rows of each table, each as JSON

_HASHED = frozenset({AuditEvent._meta.db_table, SigningKey._meta.db_table})  # tables whose times are part of a hash
_AGE = "\0"  # the placeholder in a statement for the time since the recording; no value contains this character


class Recorded[Made]:
    """The result of the first call of ``make`` in this process, and the changes to rows that this call made.

    Later calls make the same changes with the same ids, and return a copy of the result. Times (not those in JSON) are
    shifted by the time since the recording, so that a test does not depend on the duration of earlier tests. The
    rows of audit events and signing keys keep their times, because hashes cover them: the hashes of the ledger, and
    the hash in the key set's ETag. If the database role is not a superuser, nothing is recorded and each call calls
    ``make``.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made = b""
        self._statement = ""

    def __call__(self) -> Made:
        """Call ``make``, or apply its recorded changes to the rows and return a copy of its result."""
        if not self._made:
            return self._record()
        age = timezone.now() - self._at
        interval = f"interval '{age // timedelta(microseconds=1)} microseconds'"
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(self._statement.replace(_AGE, interval))
        made: Made = _LaterUnpickler(self._made, age).load()
        return made

    def _record(self) -> Made:
        before = _all_rows()
        made = self._make()
        self._at = timezone.now()
        after = _all_rows()
        if may_disable_triggers():
            self._statement = _change(_without(before, after), _without(after, before))
            self._made = _pickled(made)
        return made


class _Pickler(pickle.Pickler):
    """A pickler that leaves times to ``_LaterUnpickler``."""

    def persistent_id(self, value: Any) -> datetime | None:
        return value if isinstance(value, datetime) else None


class _LaterUnpickler(pickle.Unpickler):
    """An unpickler that adds ``age`` to each time."""

    def __init__(self, pickled: bytes, age: timedelta) -> None:
        super().__init__(io.BytesIO(pickled))
        self._age = age

    def persistent_load(self, time: datetime) -> datetime:
        return time + self._age


def _pickled(made: Any) -> bytes:
    target = io.BytesIO()
    _Pickler(target).dump(made)
    return target.getvalue()


_recorded: dict[Hashable, Recorded[Any]] = {}


def recorded[Made](key: Hashable, make: Callable[[], Made]) -> Made:
    """Return the result of ``make``, which is recorded per key and newest audit event.

    Later calls apply the recorded changes again and return a copy of the result. See ``Recorded``.
    """
    newest = AuditEvent.objects.order_by("id").values_list("id", flat=True).last()
    made: Made = _recorded.setdefault((newest, key), Recorded(make))()
    return made


def may_disable_triggers() -> bool:
    """Return whether the database role is a superuser. In an external database it may not be."""
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


class _Column(NamedTuple):
    name: str
    is_time: bool
    is_key: bool


def _columns() -> dict[str, list[_Column]]:
    """Return the columns of each table that has a primary key."""
    columns: dict[str, list[_Column]] = {}
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT c.relname, quote_ident(a.attname), a.atttypid = 'timestamptz'::regtype, a.attnum = ANY (i.indkey)
            FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE i.indisprimary AND a.attnum > 0 AND NOT a.attisdropped
        """)
        for table, *column in cursor:
            columns.setdefault(table, []).append(_Column(*column))
    return columns


def _change(gone: _Rows, new: _Rows) -> str:
    """Return statements that delete the rows ``gone`` and insert the rows ``new``.

    They run without triggers, since rows that triggers create are recorded as well.
    """
    columns = _columns()
    statements = ["SET LOCAL session_replication_role = replica"]
    for table, rows in gone.items():
        if rows:
            same = " AND ".join(f"t.{each.name} = gone.{each.name}" for each in columns[table] if each.is_key)
            statements.append(f'DELETE FROM "{table}" t USING {_recordset(table, rows)} gone WHERE {same}')
    for table, rows in new.items():
        if rows:
            names = ", ".join(each.name for each in columns[table])
            values = ", ".join(
                f"{each.name} + {_AGE}" if each.is_time and table not in _HASHED else each.name
                for each in columns[table]
            )
            statements.append(f'INSERT INTO "{table}" ({names}) SELECT {values} FROM {_recordset(table, rows)} new')
    return ";".join([*statements, "SET LOCAL session_replication_role = origin"])


def _recordset(table: str, rows: list[str]) -> str:
    return f'jsonb_populate_recordset(NULL::"{table}", {_quoted(rows)})'


def _quoted(rows: list[str]) -> str:
    return "'[" + ",".join(rows).replace("'", "''") + "]'"
