"""Cleans a host's data folder regularly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db import connection

from apps.artifacts.services import derived
from byteor_cloud.storage import data_folders

EVERY_S = 600.0  # seconds between two cleanings
END_S = 5.0  # seconds to wait for the thread to stop
logger = structlog.get_logger(__name__)


@contextmanager
def cleaned() -> Iterator[None]:
    """Remove leftovers of killed processes and unused derived files, immediately and regularly while the block runs."""
    clean()
    stop = threading.Event()
    # A daemon thread, because a hanging database must not keep the server from stopping.
    thread = threading.Thread(target=_clean, args=(stop,), name="cleaning", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(END_S)


def clean() -> None:
    """Clean the data folder once. A failure is only logged, because the next attempt may succeed."""
    try:
        data_folders.remove_leftovers()
        derived.delete_unused()
    except Exception as error:
        logger.warning("cleaning_failed", exc_info=error)
    finally:
        connection.close()


def _clean(stop: threading.Event) -> None:
    while not stop.wait(EVERY_S):
        clean()
