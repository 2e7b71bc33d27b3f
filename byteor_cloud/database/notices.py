"""PostgreSQL's notifications, received on one connection of this process, for caches that must not become stale.

A cache may be used only while ``is_current`` is true: notifications of everything that was committed more than
``LEASE_S`` ago have then been delivered. The connection is tested every ``PING_S``, because a broken network may keep a
dead connection open for minutes. After a gap, nothing shows which notifications were missed, so caches are emptied.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from psycopg import sql

from byteor_cloud.concurrency import deadline
from byteor_cloud.database import serving
from byteor_cloud.database.connections import direct_connection, wait_for

LEASE_S, PING_S, RETRY_S = 0.9, 0.3, 0.2
# A connection that does not respond for this long is replaced. This is longer than the lease, because
# reconnecting and refilling the caches would put more load on a server that is only busy.
RESPONSE_S = 5.0
logger = structlog.get_logger(__name__)


class Notices:
    """A process's subscriptions, and the thread or greenlet that listens for their notifications."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]] = direct_connection) -> None:
        self._connect = connect
        self._handlers: dict[str, Callable[[str], None]] = {}
        self._gap_handlers: list[Callable[[], None]] = []
        self._current_until = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def subscribe(self, channel: str, handler: Callable[[str], None]) -> None:
        """Call ``handler`` with the payload of each notification of the channel. Call this before ``start``."""
        self._handlers[channel] = handler

    def on_gap(self, handler: Callable[[], None]) -> None:
        """Call ``handler`` whenever notifications may have been missed, before ``is_current`` is true again."""
        self._gap_handlers.append(handler)

    def is_current(self) -> bool:
        """Return whether notifications of all commits more than ``LEASE_S`` ago have certainly been delivered."""
        return time.monotonic() < self._current_until

    def start(self) -> None:
        """Listen in a separate thread (in gunicorn's event loop, a greenlet) until ``stop``."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _run(self) -> None:
        is_lost = False
        while not self._stopping.is_set():
            try:
                with self._connect() as session:
                    self._follow(session)
            except (psycopg.Error, OSError, ValueError) as error:  # ValueError: the socket has been closed
                if not is_lost or self._current_until > 0.0:  # log only once until the connection works again
                    logger.warning("notices_lost", error=str(error).partition("\n")[0])
                is_lost = True
            self._current_until = 0.0
            self._stopping.wait(RETRY_S)

    def _follow(self, session: psycopg.Connection[Any]) -> None:
        session.add_notify_handler(self._deliver)
        with deadline.limited(RESPONSE_S):
            serving.share(session)
            for channel in self._handlers:
                session.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        for handler in self._gap_handlers:
            handler()
        while not self._stopping.is_set():
            asked = time.monotonic()
            with deadline.limited(RESPONSE_S):
                session.execute("SELECT 1")  # this also delivers notifications
            self._current_until = asked + LEASE_S
            wait_for(session.fileno(), select.POLLIN, seconds=PING_S)

    def _deliver(self, notice: psycopg.Notify) -> None:
        with suppress(KeyError):
            self._handlers[notice.channel](notice.payload)


notices = Notices()
