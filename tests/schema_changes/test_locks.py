"""Tests that migrations do not stall a live service, and can be repeated after they were killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S, wait_until
from tests.schema_changes.databases import Database, Migrations

# The second operation sleeps if the environment variable ``WAIT`` is set.
ADD_COLUMN = """
import os, time
from django.db import migrations, models

def wait(apps, schema_editor):
    print("waiting", flush=True)
    if "WAIT" in os.environ:
        time.sleep(600)

class Migration(migrations.Migration):
    dependencies = [("tenancy", "LATEST")]
    operations = [
        migrations.AddField("project", "color", models.CharField(max_length=20, default="", db_default="")),
        migrations.RunPython(wait),
    ]
"""
ADD_INDEX = """
from django.db import migrations, models
from byteor_cloud.database.concurrent_index import BuildIndexConcurrently

class Migration(migrations.Migration):
    atomic = False
    dependencies = [("tenancy", "LATEST")]
    operations = [BuildIndexConcurrently("project", models.Index(fields=["name"], name="tenancy_project_name"))]
"""
COLUMN = "SELECT 1 FROM information_schema.columns WHERE table_name = 'tenancy_project' AND column_name = 'color'"
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('tenancy_project_name')"
RECORDED = "SELECT 1 FROM django_migrations WHERE app = 'tenancy' AND name LIKE '9001_%'"
OTHERS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'CREATE INDEX%'
"""
LOCKING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%advisory_lock%'
    AND pid <> pg_backend_pid()
"""


@pytest.fixture
def database(django_db_modify_db_settings: None, tmp_path: Path) -> Iterator[Database]:
    """Create a migrated database. ``django_db_modify_db_settings`` closes the connections to the copied database."""
    is_embedded = "BYTEOR_EMBEDDED_DATABASE_URL" in os.environ
    with Database.created(is_migrated=is_embedded) as made:
        if not is_embedded:
            made.manage("migrate", migrations=Migrations(tmp_path / "present"))
        yield made


@pytest.fixture
def later(tmp_path: Path) -> Migrations:
    return Migrations(tmp_path / "later")


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Read the output up to a line with this text."""
    assert process.stdout is not None
    assert any(text in line for line in process.stdout), f"{text} was not printed"


def test_writes_proceed_while_migration_waits_for_long_transaction(database: Database, later: Migrations) -> None:
    later.add("tenancy", "9001_color", ADD_COLUMN)
    with database.connect() as reader, database.connect(autocommit=True) as writer:
        reader.execute("SELECT 1 FROM tenancy_project")  # holds a lock until the transaction ends
        process = database.start("migrate", migrations=later)
        for _ in range(2):
            wait_for_line(process, "migration_waits_for_lock")
            writer.execute("UPDATE tenancy_project SET name = name")
            writer.execute("SELECT 1 FROM tenancy_project")
        assert database.fetch(COLUMN) == []
        reader.rollback()
        output, _ = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0, output
    assert database.fetch(COLUMN) == database.fetch(RECORDED) == [(1,)]


def test_killed_migration_leaves_no_trace_and_can_be_repeated(database: Database, later: Migrations) -> None:
    later.add("tenancy", "9001_color", ADD_COLUMN)
    process = database.start("migrate", migrations=later, WAIT="1")
    wait_for_line(process, "waiting")
    kill(process)
    wait_until(lambda: database.fetch(OTHERS) == [])

    assert database.fetch(COLUMN) == database.fetch(RECORDED) == []

    database.manage("migrate", migrations=later)

    assert database.fetch(COLUMN) == database.fetch(RECORDED) == [(1,)]


def test_index_is_built_without_blocking_writes_and_rebuilt_after_interruption(
    database: Database, later: Migrations
) -> None:
    later.add("tenancy", "9001_index", ADD_INDEX)
    with database.connect() as older, database.connect(autocommit=True) as writer:
        older.execute("UPDATE tenancy_project SET name = name")  # the index build waits for the end of this transaction
        process = database.start("migrate", migrations=later)
        wait_until(lambda: database.fetch(INDEX) == [(False,)])
        writer.execute("UPDATE tenancy_project SET name = name")
        kill(process)
        writer.execute(TERMINATE)
        older.rollback()
    wait_until(lambda: database.fetch(OTHERS) == [])

    assert database.fetch(INDEX) == [(False,)]

    database.manage("migrate", migrations=later)

    assert database.fetch(INDEX) == [(True,)]
    assert database.fetch(RECORDED) == [(1,)]


def test_process_that_waits_for_migration_lock_does_not_block_index_build(
    database: Database, later: Migrations
) -> None:
    later.add("tenancy", "9001_index", ADD_INDEX)
    with database.connect() as older:
        older.execute("UPDATE tenancy_project SET name = name")
        first = database.start("migrate", migrations=later)
        wait_until(lambda: database.fetch(INDEX) == [(False,)])
        second = database.start("migrate", migrations=later)
        wait_until(lambda: database.fetch(LOCKING) == [(2,)])
        older.rollback()
        outputs = [process.communicate(timeout=PATIENCE_S)[0] for process in (first, second)]

    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert database.fetch(INDEX) == [(True,)]
