"""Tests of ``migrate``: further attempts when a table is locked, and errors that an operator must resolve."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands import migrate as django_migrate
from django.db import OperationalError, ProgrammingError, connection
from django.db.migrations.exceptions import InconsistentMigrationHistory

from apps.operations.management.commands import migrate

pytestmark = pytest.mark.django_db


class Attempts:
    """A replacement for Django's ``migrate``: each attempt fails with the next error, or succeeds if there is none.

    Each attempt takes five minutes of the clock ``monotonic``.
    """

    def __init__(self, *errors: type[psycopg.Error]) -> None:
        self.errors = list(errors)
        self.timeouts: list[str] = []
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def __call__(self, *args: Any, **options: Any) -> None:
        self.timeouts.append(lock_timeout())
        self.seconds += 300
        if self.errors:
            raise OperationalError("cancelled") from self.errors.pop(0)()


def lock_timeout() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        return str(cursor.fetchone()[0])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the pauses between attempts."""
    monkeypatch.setattr(migrate, "PAUSE_S", 0)


def test_migration_is_tried_again_if_table_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
    monkeypatch.setattr(django_migrate.Command, "handle", attempts)
    before = lock_timeout()

    call_command("migrate", verbosity=0)

    assert attempts.timeouts == ["1s"] * 3
    assert lock_timeout() == before


def test_migration_fails_if_table_is_still_locked_ten_minutes_after_first_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = Attempts(*[psycopg.errors.LockNotAvailable] * 9)
    monkeypatch.setattr(django_migrate.Command, "handle", attempts)
    monkeypatch.setattr("apps.operations.management.commands.migrate.time.monotonic", attempts.monotonic)

    with pytest.raises(CommandError, match="could not lock a table") as raised:
        call_command("migrate", verbosity=0)

    assert "\n" not in str(raised.value)
    assert len(attempts.timeouts) == 3


def test_migration_is_not_tried_again_after_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(psycopg.errors.DiskFull)
    monkeypatch.setattr(django_migrate.Command, "handle", attempts)

    with pytest.raises(OperationalError):
        call_command("migrate", verbosity=0)

    assert len(attempts.timeouts) == 1


def fail(error: Exception, cause: Exception | None = None) -> Any:
    def handle(*args: Any, **options: Any) -> None:
        raise error from cause

    return handle


def test_missing_privilege_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = ProgrammingError("must be owner of table tenancy_project\nLINE 1")
    monkeypatch.setattr(
        django_migrate.Command, "handle", fail(reason, psycopg.errors.InsufficientPrivilege(str(reason)))
    )

    with pytest.raises(CommandError, match="schema: must be owner of table tenancy_project") as raised:
        call_command("migrate", verbosity=0)

    assert "\n" not in str(raised.value)


def test_contradicting_migration_history_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_migrate.Command, "handle", fail(InconsistentMigrationHistory("A is applied before B.")))

    with pytest.raises(CommandError, match=r"contradict each other: A is applied before B\. Restore a backup"):
        call_command("migrate", verbosity=0)


@pytest.mark.parametrize("name", ["0014", "0014_found_by_words"])
def test_replaced_migration_is_refused_as_target(name: str) -> None:
    """Django would undo 0015 alone, and then refuse to load the migrations of this database."""
    with pytest.raises(CommandError, match=r"0014_found_by_words was replaced by 0001_squashed_0015_held_offers"):
        call_command("migrate", "fleet", name, verbosity=0)
