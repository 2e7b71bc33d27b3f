"""The embedded database kept running for as long as a server needs it."""

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
from byteor_cloud.embedded import EmbeddedPostgres, EmbeddedPostgresError

RETRY_S = 1.0
logger = structlog.get_logger(__name__)


@contextmanager
def revived(current: Config) -> Iterator[None]:
    """Start the embedded database again whenever it ends meanwhile; another kind of database is its owner's."""
    if current.database_url is not None:
        yield
        return
    held = EmbeddedPostgres(current.data_dir)
    stop, tell = os.pipe()
    watcher = threading.Thread(target=_watch, args=(held, stop), name="revival")
    watcher.start()
    try:
        yield
    finally:
        os.close(tell)
        watcher.join()
        os.close(stop)
        held.release()


def _watch(held: EmbeddedPostgres, stop: int) -> None:
    """Hold an idle connection: the server hangs up when it dies, and nothing has to be asked every second."""
    ready: list[int] = []
    while stop not in ready:
        try:
            with contextlib.closing(psycopg.connect(held.acquire(), autocommit=True)) as connection:
                ready, _, _ = select.select([connection.fileno(), stop], [], [])
            if stop not in ready:
                logger.warning("embedded_database_hung_up")
        except (EmbeddedPostgresError, psycopg.Error) as error:
            logger.warning("embedded_database_unavailable", error=str(error).partition("\n")[0])
            ready, _, _ = select.select([stop], [], [], RETRY_S)
