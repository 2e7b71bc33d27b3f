"""Tests that docs/tables.md lists every database table, and tests of the jobs that the page names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.db import connection

from apps.tenancy.jobs import PurgeEnvironment, PurgeProject
from byteor_cloud.ids import uuid7
from byteor_cloud.worker.jobs import KINDS, Claim

pytestmark = pytest.mark.django_db
PAGE = Path(__file__).parents[1] / "docs/tables.md"
# The permitted reasons why no job deletes the rows of a table.
WITHOUT_A_JOB = re.compile(r"nothing|the queue itself|with the job|the worker")


def rows() -> list[tuple[str, str, str, str]]:
    """Return the cells of each table row on the page, without the headings."""
    cells = [tuple(part.strip() for part in line.split("|")[1:-1]) for line in PAGE.read_text().splitlines()
             if line.startswith("| `")]  # fmt: skip
    assert all(len(row) == 4 and all(row) for row in cells)
    return cells  # type: ignore[return-value]  # each has four cells, as checked above


def named_jobs() -> list[str]:
    return sorted({job for *_, by in rows() for job in re.findall(r"`(\w+\.\w+)`", by)})


def test_page_lists_every_existing_table_once_and_no_other_table() -> None:
    named = [table.strip("`") for table, *_ in rows()]
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        there = {name for (name,) in cursor.fetchall()}

    assert sorted(named) == sorted(set(named))
    assert there - set(named) == set(), "describe these in docs/tables.md: bounds, and the job that deletes old rows"
    assert set(named) - there == set(), "docs/tables.md names tables that do not exist"


def test_every_table_has_deleting_job_or_reason_for_having_none() -> None:
    without = [table for table, _, _, by in rows() if "`" not in by and not WITHOUT_A_JOB.match(by)]

    assert without == []


@pytest.mark.parametrize("name", named_jobs())
def test_job_named_in_tables_page_can_run(name: str) -> None:
    kind = KINDS[name]
    arguments = {"id": str(uuid7())} if kind.periodic is None else {}

    kind.run(Claim(), **arguments)


def test_jobs_named_in_tables_page_are_periodic_or_purges() -> None:
    periodic = {name for name, kind in KINDS.items() if kind.periodic is not None}
    purges = {PurgeProject.name, PurgeEnvironment.name}

    assert set(named_jobs()) - purges <= periodic
