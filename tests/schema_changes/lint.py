"""Check the migrations that are newer than the last release: ``python -m tests.schema_changes.lint``.

With ``--release``, write the list of the release's migrations instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import django
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django_migration_linter.sql_analyser.analyser import analyse_sql_statements
from django_migration_linter.sql_analyser.postgresql import PostgresqlAnalyser

from byteor_cloud.database.concurrent_index import BuildIndexConcurrently
from tests.schema_changes import released
from tests.schema_changes.released import Name

# Squawk's rules about locks, rewritten tables, processes of the last release and syntax errors. Its other rules are
# about style or not needed. For example, ``_lint`` checks drops, and ``manage.py migrate`` limits its waits for locks.
SQUAWK_RULES = frozenset(
    {
        "adding-field-with-default",
        "adding-foreign-key-constraint",
        "adding-not-nullable-field",
        "adding-required-field",
        "adding-serial-primary-key-field",
        "ban-concurrent-index-creation-in-transaction",
        "changing-column-type",
        "constraint-missing-not-valid",
        "disallowed-unique-constraint",
        "renaming-column",
        "renaming-table",
        "require-concurrent-index-creation",
        "require-concurrent-index-deletion",
        "require-concurrent-reindex",
        "syntax-error",
    }
)
DROPS = {"DROP_COLUMN", "DROP_TABLE"}


def find_problems(loader: MigrationLoader, name: Name, used: set[Name]) -> list[str]:
    """Return what is wrong with a migration, one line for each problem.

    ``used`` contains the columns that processes of the last release use. Other columns may be dropped.
    """
    migration = loader.graph.nodes[name]
    sql = loader.collect_sql([(migration, False)])
    if migration.atomic:
        sql = ["BEGIN;", *sql, "COMMIT;"]
    found = [*_check_operations(migration), *_lint(sql, used), *_squawk(sql)]
    return [f"apps/{name[0]}/migrations/{name[1]}.py: {problem}" for problem in found]


def _check_operations(migration: Migration) -> list[str]:
    found = []
    if not migration.atomic and len(migration.operations) != 1:
        found.append("a migration that is not atomic must have a single operation, so that it can be repeated")
    if any(type(operation) is AddIndexConcurrently for operation in migration.operations):
        found.append(f"use {BuildIndexConcurrently.__name__}, which removes what remains of an interrupted attempt")
    return found


def _lint(sql: list[str], used: set[Name]) -> list[str]:
    errors, _, warnings = analyse_sql_statements(PostgresqlAnalyser, sql)
    tables = {table for table, _ in used}
    return [
        f"django-migration-linter {issue.code}: {issue.message}"
        for issue in (*errors, *warnings)
        if issue.code not in DROPS or ((issue.table, issue.column) in used if issue.column else issue.table in tables)
    ]


def _squawk(sql: list[str]) -> list[str]:
    program = Path(sysconfig.get_path("scripts"), "squawk")
    arguments = ["--pg-version=15.0", "--reporter=json", "--stdin-filepath=migration.sql"]
    done = subprocess.run([program, *arguments], input="\n".join(sql), capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:  # with 1, squawk has found problems
        raise RuntimeError(done.stderr)
    reports = json.loads(done.stdout or "[]")
    return [
        f"squawk {report['rule_name']}: {report['message']}"
        for report in reports
        if report["rule_name"] in SQUAWK_RULES
    ]


def main() -> int:
    """Print the problems. With ``--release``, write the list instead. Return the exit code."""
    if "--release" in sys.argv[1:]:
        released.write_list()
        return 0
    names = released.read_list()
    if {(file.parent.parent.name, file.stem) for file in released.APPS.glob("*/migrations/0*.py")} <= names:
        return 0
    # The SQL of a migration depends on the schema before it, so this needs a server. Importing the module starts one,
    # unless BYTEOR_CLOUD_DATABASE_URL names a server.
    import tests.postgres  # noqa: F401

    os.environ["DJANGO_SETTINGS_MODULE"] = "byteor_cloud.settings"
    django.setup()
    loader = MigrationLoader(connection)
    used = released.find_columns(loader, names)
    found = [problem for name in released.find_new(loader, names) for problem in find_problems(loader, name, used)]
    print("".join(f"{problem}\n" for problem in found), end="", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
