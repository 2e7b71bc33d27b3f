"""Steps of tests about the ledger: look up events, alter them, read exports, run commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command
from django.db import connection

from tests.worlds import World

GUARDED = ("tenancy_auditevent", "tenancy_auditseal")


@contextmanager
def without_triggers() -> Iterator[Any]:
    """Disable triggers and foreign keys during the block, like an attacker with full access to the database."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # PostgreSQL cannot alter a table with pending checks
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only")
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield cursor
        cursor.execute("SET LOCAL session_replication_role = origin")
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_append_only")


def event_of(seals: Any, seq: int) -> str:
    return str(seals.get(seq=seq).event_id)


def lines_of(response: Any) -> list[str]:
    return b"".join(response.streaming_content).decode().splitlines()


def export_path(world: World, query: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/audit-events/export{query}"


def run(*argv: str) -> tuple[int, list[str]]:
    """Run a command and return its exit code and the lines that it prints."""
    out = StringIO()
    try:
        call_command(*argv, stdout=out)
    except CommandError as error:
        return error.returncode, [*out.getvalue().splitlines(), str(error)]
    return 0, out.getvalue().splitlines()
