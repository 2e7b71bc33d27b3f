"""Restarts the embedded database if it dies while a server runs."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import structlog

from byteor_cloud.config import Config
from byteor_cloud.database.embedded import EmbeddedPostgres
from byteor_cloud.database.embedded_files import EmbeddedPostgresError

RETRY_S = 1.0
logger = structlog.get_logger(__name__)


@contextmanager
def keep_embedded_database_running(current: Config) -> Iterator[None]:
    """Restart the embedded database whenever it dies while the block runs. Does nothing with an external database."""
    if current.database_url is not None:
        yield
        return
    embedded = EmbeddedPostgres(current.data_dir)
    stop, closed_to_stop = os.pipe()
    watcher = threading.Thread(target=_watch, args=(embedded, stop), name="embedded restart")
    watcher.start()
    try:
        yield
    finally:
        os.close(closed_to_stop)
        watcher.join()
        os.close(stop)
        embedded.release()


def _watch(embedded: EmbeddedPostgres, stop: int) -> None:
    """Restart the database whenever it dies, until ``stop`` is readable.

    This waits on an idle connection, which is closed when the database dies, so no polling is needed.
    """
    ready: list[int] = []
    while stop not in ready:
        try:
            with contextlib.closing(psycopg.connect(embedded.acquire(), autocommit=True)) as connection:
                ready, _, _ = select.select([connection.fileno(), stop], [], [])
            if stop not in ready:
                logger.warning("embedded_database_hung_up")
        except (EmbeddedPostgresError, psycopg.Error) as error:
            logger.warning("embedded_database_unavailable", error=str(error).partition("\n")[0])
            ready, _, _ = select.select([stop], [], [], RETRY_S)
