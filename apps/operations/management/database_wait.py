"""Waits for a database that is not available yet, for example because it starts together with this server."""

from __future__ import annotations

import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import psycopg
from django.conf import settings
from django.db import OperationalError, connection
from psycopg.pq import ExecStatus

from byteor_cloud.config import Config
from byteor_cloud.database.connections import direct_connection, wait_for

PATIENCE_S = 60.0
LINE_EVERY_S = 5.0
RETRY_S = 0.5
RESPONSE_S = 5  # seconds allowed for a query and, by default, for an attempt to connect
# The errors that waiting cannot resolve, in the English of libpq, PostgreSQL and pgbouncer. After any other error, or
# one in another language, the server may still be starting.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|permission denied|no such (?:database|user)"
    r"|(?:database|role|user) \S+ does not exist|does not support SSL|certificate|SSL error: (?!unexpected eof)",
    re.IGNORECASE,
)


class Attempts(Protocol):
    """Repeated attempts to reach the database. ``error`` is the latest failure."""

    error: str

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for success or a permanent refusal. Returns whether either happened."""

    @property
    def is_refused(self) -> bool:
        """Whether the error is one that waiting cannot resolve."""


def wait_for_database(report: Callable[[str], object], *, stopped_code: int) -> None:
    """Wait until the database responds. Raises OperationalError after a minute, or if waiting cannot help.

    ``report`` is called with a line every five seconds. SIGTERM and SIGINT end the process with the exit code
    ``stopped_code``. Does nothing for the embedded database, which is already running.
    """
    current: Config = settings.CONFIG
    if current.database_url is None:
        return
    with _exit_on_signals(stopped_code):
        wait_for_attempts(ConnectionAttempts(), report, clock=time.monotonic)


def wait_for_attempts(attempts: Attempts, report: Callable[[str], object], *, clock: Callable[[], float]) -> None:
    """Wait until an attempt succeeds. Calls ``report`` and raises like ``wait_for_database``."""
    started = clock()
    next_line = started + LINE_EVERY_S
    while not attempts.wait(max(0.0, min(next_line, started + PATIENCE_S) - clock())):
        if clock() >= started + PATIENCE_S:
            raise OperationalError(f"no attempt succeeded within {PATIENCE_S:.0f} s: {attempts.error}")
        if clock() >= next_line:
            report(f"waiting for the database {describe()}: {attempts.error}")
            next_line += LINE_EVERY_S
    if attempts.is_refused:
        raise OperationalError(attempts.error)


def describe() -> str:
    """Return the database's host, port and name, without user and password."""
    known = connection.settings_dict
    host = known["HOST"] or "localhost"
    port = known["PORT"] or known["OPTIONS"].get("port", 5432)
    return f"{host}:{port}/{known['NAME']}"


class ConnectionAttempts:
    """Attempts to connect, in a separate thread because looking up a host name cannot be interrupted."""

    def __init__(self) -> None:
        self.error = "no attempt has finished yet"
        self.is_refused = False
        self._is_over = threading.Event()
        threading.Thread(target=self._repeat, name="database wait", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        return self._is_over.wait(seconds)

    def _repeat(self) -> None:
        while not self._is_over.is_set():
            try:
                _try_to_connect()
            except psycopg.OperationalError as error:
                self.error = " ".join(str(error).split())[:300]
                self.is_refused = bool(_REFUSALS.search(self.error))
                if not self.is_refused:
                    time.sleep(RETRY_S)
                    continue
            except Exception as error:  # noqa: BLE001,RUF100  the main thread reports the error
                # The error's text may quote the password ("invalid percent-encoded token").
                self.error = f"the URL is invalid ({type(error).__name__})"
                self.is_refused = True
            self._is_over.set()


def _try_to_connect() -> None:
    """Raise OperationalError if the database or, behind a pooler, the direct connection does not respond to a query."""
    parameters: dict[str, Any] = {"connect_timeout": RESPONSE_S, **connection.get_connection_params()}
    with closing(psycopg.connect(autocommit=True, **parameters)) as session:
        _query(session)
    with closing(direct_connection()) as session:
        _query(session)


def _query(session: psycopg.Connection[Any]) -> None:
    """Run a query with a timeout, because a pooler accepts connections even while the server hangs."""
    session.pgconn.send_query(b"SELECT 1")
    session.pgconn.flush()
    wait_for(session.fileno(), select.POLLIN, seconds=RESPONSE_S)
    session.pgconn.consume_input()
    if session.pgconn.is_busy():
        raise psycopg.OperationalError("it accepts connections but does not respond")
    result = session.pgconn.get_result()
    if result is not None and result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))


@contextmanager
def _exit_on_signals(code: int) -> Iterator[None]:
    """Exit with this code on SIGTERM or SIGINT while the block runs."""
    before = {number: signal.signal(number, lambda *_: sys.exit(code)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
