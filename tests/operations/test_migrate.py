"""Tests that ``migrate`` tries again when a table is locked, and fails after the last attempt."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands import migrate as django_migrate
from django.db import OperationalError, connection

from apps.operations.management.commands import migrate

pytestmark = pytest.mark.django_db


class Attempts:
    """Replaces the work of Django's command: each attempt fails with the next error, or succeeds if there is none."""

    def __init__(self, *errors: type[psycopg.Error]) -> None:
        self.errors = list(errors)
        self.timeouts: list[str] = []

    def __call__(self, *args: Any, **options: Any) -> None:
        self.timeouts.append(lock_timeout())
        if self.errors:
            raise OperationalError("cancelled") from self.errors.pop(0)()


def lock_timeout() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        return str(cursor.fetchone()[0])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses and the number of attempts."""
    monkeypatch.setattr(migrate, "PAUSE_S", 0)
    monkeypatch.setattr(migrate, "ATTEMPTS", 3)


def test_locked_table_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
    monkeypatch.setattr(django_migrate.Command, "handle", attempts)
    before = lock_timeout()

    call_command("migrate", verbosity=0)

    assert attempts.timeouts == ["1s"] * 3
    assert lock_timeout() == before


def test_migration_fails_after_last_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django_migrate.Command, "handle", Attempts(*[psycopg.errors.LockNotAvailable] * 3))

    with pytest.raises(CommandError, match="could not lock a table") as raised:
        call_command("migrate", verbosity=0)

    assert "\n" not in str(raised.value)


def test_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(psycopg.errors.DiskFull)
    monkeypatch.setattr(django_migrate.Command, "handle", attempts)

    with pytest.raises(OperationalError):
        call_command("migrate", verbosity=0)

    assert len(attempts.timeouts) == 1
