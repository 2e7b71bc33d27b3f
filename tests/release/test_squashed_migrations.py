"""Tests that the squashed migrations create the same database as the migrations that they replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.schema_changes.databases import Database, Migrations

# The last applied migration of each app. The first commit had no app notifications.
EARLIER = {
    "commit 93b67c4": {
        "tenancy": "0010_audit_filters",
        "fleet": "0008_found_by_name",
        "pipelines": "0003_found_by_name",
        "releases": "0009_found_by_name",
        "artifacts": "0009_filtered_lists",
    },
    "commit 5ab4b6b4": {
        "tenancy": "0019_device_sign_ins",
        "fleet": "0014_found_by_words",
        "pipelines": "0005_found_by_words",
        "releases": "0019_found_by_words",
        "artifacts": "0019_found_by_words",
        "notifications": "0001_initial",
    },
}
ROWS = """
SELECT app_label, model, codename FROM django_content_type AS type
LEFT JOIN auth_permission AS permission ON permission.content_type_id = type.id ORDER BY 1, 2, 3
"""


def read_schema(database: Database) -> list[str]:
    """Return the statements of a dump. They and the columns in them are sorted, because their order does not matter."""
    # pg_dump adds a random key in two lines.
    lines = [
        line for line in database.dump_schema().splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    ]
    sections = "\n".join(lines).split("\n--\n-- Name: ")[1:]
    return sorted(
        "\n".join(sorted(line.rstrip(",") for line in section.splitlines())) if "; Type: TABLE;" in section else section
        for section in sections
    )


def count_rows(database: Database) -> dict[str, int]:
    tables = database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    counts = {table: database.fetch(f'SELECT count(*) FROM "{table}"')[0][0] for (table,) in tables}
    return {table: count for table, count in counts.items() if count and table != "django_migrations"}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Create a database with the squashed migrations and those that follow them."""
    with Database.created() as database:
        database.manage("migrate", migrations=Migrations(tmp_path_factory.mktemp("migrations")))
        yield database


@pytest.mark.parametrize("revision", EARLIER)
def test_migrated_database_of_earlier_revision_equals_new_database(
    revision: str, fresh: Database, tmp_path: Path
) -> None:
    earlier = Migrations(tmp_path / "earlier")
    earlier.end_at(EARLIER[revision])
    with Database.created() as database:
        database.manage("migrate", migrations=earlier)
        database.manage("migrate", migrations=Migrations(tmp_path))

        assert read_schema(database) == read_schema(fresh)
        assert count_rows(database) == count_rows(fresh)
        assert database.fetch(ROWS) == fresh.fetch(ROWS)
        database.manage("migrate", "--check", migrations=Migrations(tmp_path))


def test_replaced_migrations_alone_create_same_schema_as_squashed_and_trigger_migrations(
    fresh: Database, tmp_path: Path
) -> None:
    """The replaced migrations have already created the triggers, so the trigger migrations have nothing to change."""
    earlier = Migrations(tmp_path / "earlier")
    newest = {
        "tenancy": "0021_database_defaults",
        "fleet": "0015_held_offers",
        "releases": "0020_database_defaults",
        "artifacts": "0021_database_defaults",
    }
    earlier.end_at(EARLIER["commit 5ab4b6b4"] | newest)
    with Database.created() as database:
        database.manage("migrate", migrations=earlier)

        assert read_schema(database) == read_schema(fresh)
