"""The mark of an unfinished restore in the database, so that a half-restored installation never serves.

It is in a schema of its own, because the restored dump creates everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection, transaction

from byteor_cloud.backup.errors import BackupError

_SCHEMA = "byteor_restore"
_CREATE = f"""
CREATE SCHEMA IF NOT EXISTS {_SCHEMA};
CREATE TABLE IF NOT EXISTS {_SCHEMA}.unfinished (backup text NOT NULL, manifest text NOT NULL);
DELETE FROM {_SCHEMA}.unfinished;
"""  # noqa: S608  built from constants
_OTHER_TABLES = f"""
SELECT EXISTS (
    SELECT FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relpersistence <> 't'
        AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', '{_SCHEMA}')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e'))
"""  # noqa: S608  built from constants


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An unfinished restore: the name of its backup, and the hash of the backup's manifest."""

    backup: str
    manifest: str


def read() -> Unfinished | None:
    """Return the unfinished restore of this database, or None if there is none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"{_SCHEMA}.unfinished"])
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(f"SELECT backup, manifest FROM {_SCHEMA}.unfinished")  # noqa: S608  a constant
        row = cursor.fetchone()
    return None if row is None else Unfinished(*row)


def check() -> None:
    """Raise BackupError if a restore of this database is unfinished."""
    if (found := read()) is not None:
        raise BackupError(
            f"the restore of the backup {found.backup} into this database is unfinished: run manage.py restore again"
        )


def mark(restore: Unfinished) -> None:
    """Store that this restore is unfinished."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CREATE)
        cursor.execute(f"INSERT INTO {_SCHEMA}.unfinished VALUES (%s, %s)", [restore.backup, restore.manifest])  # noqa: S608  a constant


def remove_mark() -> None:
    """Remove the mark, in the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA {_SCHEMA} CASCADE")


def has_tables() -> bool:
    """Return whether the database contains tables, views or sequences besides the mark and those of extensions."""
    with connection.cursor() as cursor:
        cursor.execute(_OTHER_TABLES)
        return bool(cursor.fetchone()[0])
