"""Tests of finding PostgreSQL's programs, of their connection to the database, and of their errors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.programs import connection_environment, find_program, first_error
from byteor_cloud.database.embedded_files import MAJOR


def session(password: str, **parameters: str) -> psycopg.Connection[Any]:
    info = SimpleNamespace(get_parameters=lambda: parameters, password=password)
    return cast("psycopg.Connection[Any]", SimpleNamespace(info=info))


def test_error_about_missing_program_names_postgresql_version() -> None:
    with pytest.raises(BackupError, match=r"pg_dump of PostgreSQL 99 was not found.*postgresql-client-99"):
        find_program("pg_dump", 99)


def test_program_of_requested_version_is_found_in_path(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 97.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert find_program("pg_dump", 97) == program
    with pytest.raises(BackupError, match="PostgreSQL 96"):
        find_program("pg_dump", 96)


def test_newer_pg_restore_is_found_if_permitted() -> None:
    older = int(MAJOR) - 1

    assert find_program("pg_restore", older, or_newer=True) == find_program("pg_restore", int(MAJOR))
    with pytest.raises(BackupError, match="pg_restore of PostgreSQL 99 or newer was not found, and an older version"):
        find_program("pg_restore", 99, or_newer=True)


def test_connection_parameters_are_passed_in_environment_and_private_file() -> None:
    parameters = {"host": "db.example", "port": "5433", "dbname": "byteor", "user": "ada", "service": "main"}
    with connection_environment(session("s3cret", **parameters, sslpassword="k3y")) as environment:
        file = Path(environment["PGSERVICEFILE"])
        content, mode = file.read_text(), file.stat().st_mode & 0o777

    assert (content, mode, environment["PGSERVICE"]) == ("[byteor]\nsslpassword=k3y\n", 0o600, "byteor")
    assert not file.exists()
    assert environment["PGPASSWORD"] == "s3cret"
    assert {name: environment[name] for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER")} == {
        "PGHOST": "db.example", "PGPORT": "5433", "PGDATABASE": "byteor", "PGUSER": "ada",
    }  # fmt: skip


def test_error_is_shown_without_rows_and_statements() -> None:
    output = b"""pg_restore: connecting
pg_restore: error: COPY failed for table "x": ERROR:  duplicate key value violates unique constraint "y"
DETAIL:  Key (email)=(ada@acme.example) already exists.
Command was: COPY x FROM stdin;
"""

    assert first_error(output) == (
        'COPY failed for table "x": ERROR:  duplicate key value violates unique constraint "y"'
    )
    assert first_error(b"pg_dump: something else\n") == "something else"
    assert first_error(b"") == "it was killed"
