"""Tests that the check of new migrations refuses those that stall a live service or break the last release."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from pytest_django import Settings

from tests.schema_changes import released
from tests.schema_changes.lint import find_problems

# Django refuses to build concurrent indexes in a transaction.
pytestmark = pytest.mark.django_db(transaction=True)

HEAD = """
from django.db import migrations, models
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from byteor_cloud.database.concurrent_index import BuildIndexConcurrently

class Migration(migrations.Migration):
    dependencies = [("tenancy", "LATEST")]
"""
INDEX = 'models.Index(fields=["name"], name="tenancy_project_name")'
GOOD = {
    "nullable column": 'operations = [migrations.AddField("project", "color", models.TextField(null=True))]',
    "column with a default in the database": """
    operations = [migrations.AddField("project", "size", models.IntegerField(default=1, db_default=1))]
    """,
    "new table with an index": """
    operations = [migrations.CreateModel("Color", [
        ("id", models.UUIDField(primary_key=True)), ("name", models.TextField(db_index=True)),
        ("project", models.ForeignKey("tenancy.project", models.CASCADE)),
    ])]
    """,
    "concurrent index": f"""
    atomic = False
    operations = [BuildIndexConcurrently("project", {INDEX})]
    """,
    "constraint that is validated later": """
    operations = [AddConstraintNotValid("project", models.CheckConstraint(condition=~models.Q(name="x"), name="c"))]
    """,
    "column that the models no longer have": """
    operations = [migrations.SeparateDatabaseAndState(
        state_operations=[migrations.RemoveField("project", "name")],
        database_operations=[migrations.RunSQL("ALTER TABLE tenancy_project ALTER COLUMN name DROP NOT NULL")],
    )]
    """,
    "dropped column that the last release does not use": """
    operations = [migrations.RunSQL('ALTER TABLE "tenancy_project" DROP COLUMN "color"')]
    """,
}
BAD = {
    "column without a default": (
        'operations = [migrations.AddField("project", "size", models.IntegerField(default=1))]',
        "django-migration-linter NOT_NULL",
    ),
    "required column": (
        """operations = [migrations.RunSQL('ALTER TABLE "tenancy_project" ADD COLUMN "size" integer NOT NULL')]""",
        "squawk adding-required-field",
    ),
    "index that blocks writes": (
        f'operations = [migrations.AddIndex("project", {INDEX})]',
        "squawk require-concurrent-index-creation",
    ),
    "concurrent index that cannot be repeated": (
        f"""
    atomic = False
    operations = [AddIndexConcurrently("project", {INDEX})]
        """,
        "use BuildIndexConcurrently",
    ),
    "concurrent index with another operation": (
        f"""
    atomic = False
    operations = [
        migrations.AddField("project", "color", models.TextField(null=True)),
        BuildIndexConcurrently("project", {INDEX}),
    ]
        """,
        "must have a single operation",
    ),
    "dropped column": (
        'operations = [migrations.RemoveField("project", "name")]',
        "django-migration-linter DROP_COLUMN",
    ),
    "dropped table": (
        'operations = [migrations.DeleteModel("RateCounter")]',
        "django-migration-linter DROP_TABLE",
    ),
    "renamed column": (
        'operations = [migrations.RenameField("project", "name", "title")]',
        "squawk renaming-column",
    ),
    "changed type": (
        'operations = [migrations.AlterField("project", "name", models.IntegerField())]',
        "squawk changing-column-type",
    ),
    "constraint that reads all rows": (
        """
    operations = [
        migrations.AddConstraint("project", models.CheckConstraint(condition=~models.Q(name="x"), name="c"))
    ]
        """,
        "squawk constraint-missing-not-valid",
    ),
}


@pytest.fixture
def package(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a package with the migrations of the app tenancy, to which tests add new migrations."""
    folder = tmp_path / "later_tenancy"
    folder.mkdir()
    (folder / "__init__.py").write_text("from apps.tenancy import migrations\n__path__ += migrations.__path__\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.MIGRATION_MODULES = {"tenancy": folder.name}
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def lint(package: Path, body: str) -> list[str]:
    """Add a migration to the package and return its problems."""
    latest = max(file.stem for file in released.APPS.glob("tenancy/migrations/0*.py"))
    (package / "9001_new.py").write_text(f"{HEAD.replace('LATEST', latest)}    {body}\n")
    loader = MigrationLoader(connection)
    present = {name for name in loader.graph.nodes if name != ("tenancy", "9001_new")}
    assert released.find_new(loader, present) == [("tenancy", "9001_new")]
    return find_problems(loader, ("tenancy", "9001_new"), released.find_columns(loader, present))


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_safe_migration_passes_check(package: Path, body: str) -> None:
    assert lint(package, body) == []


@pytest.mark.parametrize(("body", "problem"), BAD.values(), ids=BAD)
def test_unsafe_migration_is_refused_with_reason(package: Path, body: str, problem: str) -> None:
    found = lint(package, body)

    assert [line for line in found if problem in line] != []
    assert all(line.startswith("apps/tenancy/migrations/9001_new.py: ") for line in found)


def test_listed_migrations_of_last_release_exist() -> None:
    loader = MigrationLoader(connection, replace_migrations=False)

    assert released.read_list() <= set(loader.disk_migrations)
    assert ("tenancy", "0022_triggers") in released.read_list()
