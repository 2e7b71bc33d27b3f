"""Lists a running server among the live hosts (``services.hosts``)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import structlog
from django.db import DatabaseError, InterfaceError, connection

from apps.tenancy.services import hosts
from byteor_cloud.ids import uuid7

EVERY_S = 10.0  # seconds between two reports, several times shorter than hosts.LIVE_FOR
END_S = 5.0  # seconds to wait for the thread to stop
logger = structlog.get_logger(__name__)


@contextmanager
def announced() -> Iterator[None]:
    """List this server among the live hosts, with the ids of its master keys, while the block runs."""
    host_id = uuid7()
    hosts.announce(host_id)
    connection.close()
    stop = threading.Event()
    # A daemon thread, because a hanging database must not keep the server from stopping.
    thread = threading.Thread(target=_announce, args=(host_id, stop), name="host registration", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(END_S)


def _announce(host_id: UUID, stop: threading.Event) -> None:
    is_over = False
    while not is_over:
        is_over = stop.wait(EVERY_S)
        try:
            hosts.withdraw(host_id) if is_over else hosts.announce(host_id)
        except (DatabaseError, InterfaceError, psycopg.Error) as error:
            logger.warning("host_not_announced", kind=type(error).__name__)
        finally:
            connection.close()
