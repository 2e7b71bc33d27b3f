"""Tests that processes of the last release and of this release work on the current schema."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from tests.schema_changes import released
from tests.schema_changes.released import Name

pytestmark = pytest.mark.django_db

# Identity and generated columns have a value without a default.
COLUMNS = """
SELECT table_name, column_name, is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
    AND is_generated = 'NEVER'
FROM information_schema.columns WHERE table_schema = current_schema()
"""


@pytest.fixture(scope="module")
def used() -> set[Name]:
    """Find the columns that processes of the last release use."""
    loader = MigrationLoader(None)
    return released.find_columns(loader, released.read_list())


def find_missing(used: set[Name]) -> set[Name]:
    """Return the columns of the last release that the database does not have."""
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS)
        return used - {(table, column) for table, column, _ in cursor}


def find_required(used: set[Name]) -> set[Name]:
    """Return the columns that are not in ``used``, but to which each new row of the same tables must give a value."""
    tables = {table for table, _ in used}
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS)
        return {(table, column) for table, column, is_required in cursor if is_required and table in tables} - used


def present_columns() -> set[Name]:
    loader = MigrationLoader(None)
    return released.find_columns(loader, set(released.find_new(loader, set())))


def test_last_release_can_read_and_insert_rows(used: set[Name]) -> None:
    assert len(used) > 500
    assert find_missing(used) == set()
    assert find_required(used) == set()


def test_columns_without_field_need_no_value() -> None:
    """A column remains for one release after its last use. This release inserts rows without a value for it."""
    assert find_required(present_columns()) == set()


def test_required_column_without_default_and_renamed_column_are_detected(used: set[Name]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE tenancy_project ADD COLUMN a integer, ADD COLUMN b integer NOT NULL DEFAULT 0")
        assert find_required(used) == set()

        cursor.execute("ALTER TABLE tenancy_project ADD COLUMN size integer NOT NULL")
        cursor.execute("ALTER TABLE tenancy_project RENAME COLUMN name TO title")

    assert find_required(used) == {("tenancy_project", "size"), ("tenancy_project", "title")}
    assert find_missing(used) == {("tenancy_project", "name")}
