"""Tests of how long ``serve`` and ``restore`` wait for the database, and what they report.

tests/system/test_host_keys.py tests ``serve`` with real processes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection

from apps.operations.management import database_wait
from tests.patience import PATIENCE_S


class FakeAttempts:
    """Attempts that finish ``end_at`` seconds after the start of the fake clock, or never."""

    def __init__(self, *, end_at: float | None, is_refused: bool = False, error: str = "connection refused") -> None:
        self.now = 1000.0
        self.error, self.is_refused = error, False
        self._end_at = None if end_at is None else self.now + end_at
        self._will_be_refused = is_refused

    def wait(self, seconds: float) -> bool:
        if self._end_at is not None and self._end_at <= self.now + seconds:
            self.now = max(self.now, self._end_at)
            self.is_refused = self._will_be_refused
            return True
        self.now += seconds
        return False

    def clock(self) -> float:
        return self.now


@pytest.fixture
def lines() -> list[str]:
    return []


def test_wait_for_database_gives_up_after_60_seconds_and_reports_every_5_seconds(lines: list[str]) -> None:
    attempts = FakeAttempts(end_at=None)

    with pytest.raises(OperationalError, match=r"^no attempt succeeded within 60 s: connection refused$"):
        database_wait.wait_for_attempts(attempts, lines.append, clock=attempts.clock)

    assert attempts.now == 1060
    assert len(lines) == 11
    assert all(line.startswith("waiting for the database ") and line.endswith(": connection refused") for line in lines)


@pytest.mark.parametrize(("end_at", "reported"), [(0, 0), (4, 0), (23, 4), (59, 11)])
def test_wait_finishes_when_database_becomes_available(lines: list[str], end_at: float, reported: int) -> None:
    attempts = FakeAttempts(end_at=end_at)

    database_wait.wait_for_attempts(attempts, lines.append, clock=attempts.clock)

    assert (attempts.now, len(lines)) == (1000 + end_at, reported)


def test_wait_gives_up_after_permanent_refusal(lines: list[str]) -> None:
    attempts = FakeAttempts(end_at=7, is_refused=True, error="FATAL: no")

    with pytest.raises(OperationalError, match=r"^FATAL: no$"):
        database_wait.wait_for_attempts(attempts, lines.append, clock=attempts.clock)

    assert (attempts.now, len(lines)) == (1007, 1)


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ('FATAL:  password authentication failed for user "byteor"', True),
        ('FATAL:  database "byteor" does not exist', True),
        ('FATAL:  role "byteor" does not exist', True),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "byteor", database "byteor", no encryption', True),
        ("server does not support SSL, but SSL was required", True),
        ("SSL error: certificate verify failed", True),
        ("fe_sendauth: no password supplied", True),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  the database system is not yet accepting connections", False),
        ("FATAL:  sorry, too many clients already", False),
        ('connection to server at "127.0.0.1", port 1 failed: Connection refused', False),
        ("failed to resolve host 'db': [Errno -3] Temporary failure in name resolution", False),
        ("connection timeout expired", False),
        ("SSL error: unexpected eof while reading", False),
        ("server closed the connection unexpectedly", False),
    ],
)
def test_connection_is_retried_unless_refusal_is_permanent(
    monkeypatch: pytest.MonkeyPatch, text: str, is_refused: bool
) -> None:
    errors: list[Exception | None] = [psycopg.OperationalError(text), None]

    def connect(*_: object, **__: object) -> Any:
        if (error := errors.pop(0)) is not None:
            raise error
        return FakeConnection()

    monkeypatch.setattr(database_wait, "direct_connection", FakeConnection)
    monkeypatch.setattr(psycopg, "connect", connect)
    monkeypatch.setattr(database_wait, "RETRY_S", 0.0)
    monkeypatch.setattr(database_wait, "_query", lambda session: None)

    attempts = database_wait.ConnectionAttempts()

    assert attempts.wait(PATIENCE_S)
    assert attempts.is_refused == is_refused
    assert len(errors) == (1 if is_refused else 0)


class FakeConnection:
    """A connection to an available database."""

    def close(self) -> None:
        """Do nothing."""


def test_invalid_database_url_stops_wait_and_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> Any:
        raise psycopg.ProgrammingError('invalid percent-encoded token: "hunter%2"')

    monkeypatch.setattr(psycopg, "connect", connect)

    attempts = database_wait.ConnectionAttempts()

    assert attempts.wait(PATIENCE_S)
    assert attempts.is_refused
    assert attempts.error == "the URL is invalid (ProgrammingError)"


@pytest.mark.django_db
def test_available_database_is_detected(settings: Any) -> None:
    attempts = database_wait.ConnectionAttempts()

    assert attempts.wait(PATIENCE_S)
    assert not attempts.is_refused


def test_database_description_omits_user_and_password(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"HOST": "db.example", "PORT": "6432", "NAME": "byteor", "USER": "ada", "PASSWORD": "hunter2"}
    for name, value in known.items():
        monkeypatch.setitem(connection.settings_dict, name, value)

    assert database_wait.describe() == "db.example:6432/byteor"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("code", [0, 1])
def test_signal_while_waiting_ends_process_with_given_code(
    settings: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    settings.CONFIG = replace(settings.CONFIG, database_url="postgresql://db.example/byteor")
    before = signal.getsignal(number)

    def interrupted() -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(database_wait, "ConnectionAttempts", interrupted)
    with pytest.raises(SystemExit) as ended:
        database_wait.wait_for_database(lines.append, stopped_code=code)

    assert ended.value.code == code
    assert signal.getsignal(number) is before


def test_wait_does_nothing_for_embedded_database(
    settings: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CONFIG = replace(settings.CONFIG, database_url=None)
    monkeypatch.setattr(database_wait, "ConnectionAttempts", _unexpected)

    database_wait.wait_for_database(lines.append, stopped_code=0)

    assert lines == []


def _unexpected() -> Callable[[], None]:
    raise AssertionError("nothing to connect to")
