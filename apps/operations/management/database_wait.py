"""Wait for a database that is not there yet, for example because it starts together with this server."""

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
ANSWER_S = 5  # for one attempt to connect, and for the first query
# What a server says if waiting would not help. The texts are those of libpq, PostgreSQL and pgbouncer in English. With
# any other text, also in another language, the server may only be starting.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|permission denied|no such (?:database|user)"
    r"|(?:database|role|user) \S+ does not exist|does not support SSL|certificate|SSL error: (?!unexpected eof)",
    re.IGNORECASE,
)


class Attempts(Protocol):
    """Repeated attempts to reach the database. ``error`` is the latest failure."""

    error: str

    def wait(self, seconds: float) -> bool:
        """Wait until the database is there or refuses for good, but not longer. Returns whether either happened."""

    @property
    def is_refused(self) -> bool:
        """Whether the server said something that does not change by waiting."""


def wait_for_database(say: Callable[[str], object]) -> None:
    """Return once the database answers. Raises OperationalError if it refuses, or does not answer for a minute.

    ``say`` gets a line every five seconds. SIGTERM and SIGINT end the process with exit code 0. The embedded database
    runs already, so there is nothing to wait for.
    """
    current: Config = settings.CONFIG
    if current.database_url is None:
        return
    with _ended_by_signals():
        insist(ConnectionAttempts(), say, clock=time.monotonic)


def insist(attempts: Attempts, say: Callable[[str], object], *, clock: Callable[[], float]) -> None:
    """Wait for one of the attempts to succeed, as ``wait_for_database`` does."""
    started = clock()
    next_line = started + LINE_EVERY_S
    while not attempts.wait(max(0.0, min(next_line, started + PATIENCE_S) - clock())):
        if clock() >= started + PATIENCE_S:
            raise OperationalError(f"it did not answer within {PATIENCE_S:.0f} s: {attempts.error}")
        if clock() >= next_line:
            say(f"waiting for the database {describe()}: {attempts.error}")
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
    """Attempts to connect, in a thread of their own: looking up a host name cannot be interrupted."""

    def __init__(self) -> None:
        self.error = "no attempt has ended yet"
        self.is_refused = False
        self._is_over = threading.Event()
        threading.Thread(target=self._repeat, name="database wait", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        return self._is_over.wait(seconds)

    def _repeat(self) -> None:
        while not self._is_over.is_set():
            try:
                _ask()
            except psycopg.OperationalError as error:
                self.error = " ".join(str(error).split())[:300]
                self.is_refused = bool(_REFUSALS.search(self.error))
                if not self.is_refused:
                    time.sleep(RETRY_S)
                    continue
            except Exception as error:  # noqa: BLE001,RUF100  the main thread reports it
                # Without the text, which may quote the password: "invalid percent-encoded token".
                self.error = f"the URL is invalid ({type(error).__name__})"
                self.is_refused = True
            self._is_over.set()


def _ask() -> None:
    """Raise OperationalError if the database or, behind a pooler, the direct connection does not answer a query."""
    parameters: dict[str, Any] = {"connect_timeout": ANSWER_S, **connection.get_connection_params()}
    with closing(psycopg.connect(autocommit=True, **parameters)) as session:
        _query(session)
    with closing(direct_connection()) as session:
        _query(session)


def _query(session: psycopg.Connection[Any]) -> None:
    """Wait for the answer to a query, but not for ever: a pooler accepts connections while the server hangs."""
    session.pgconn.send_query(b"SELECT 1")
    session.pgconn.flush()
    wait_for(session.fileno(), select.POLLIN, seconds=ANSWER_S)
    session.pgconn.consume_input()
    if session.pgconn.is_busy():
        raise psycopg.OperationalError("it accepts connections but does not answer")
    result = session.pgconn.get_result()
    if result is not None and result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the process with exit code 0 at a stop signal while the block runs."""
    before = {number: signal.signal(number, lambda *_: sys.exit(0)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
