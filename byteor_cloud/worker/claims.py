"""A job as a worker fetched it, and the worker's claim to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Event
from typing import Any

import structlog
from django.db import connection

from byteor_cloud import jobs
from byteor_cloud.database import release_connection
from byteor_cloud.jobs import Claim, Lost

AGAIN_S = 0.5  # after trouble with the database
# The worker's own job, as it was fetched; another one's, or a later run of it, is none of its business.
MINE = "id = %(id)s AND status = 'doing' AND worker_id = %(worker)s AND attempts = %(attempts)s"
logger = structlog.get_logger(__name__)


class Run:
    """A job as it was fetched, or found without its worker."""

    def __init__(self, row: tuple[Any, ...], worker: int | None) -> None:
        self.id, self.queue, self.task, self.serial, self.arguments, self.attempts = row[:6]
        if isinstance(self.arguments, str):
            self.arguments = json.loads(self.arguments)
        self.errors, self.kills, self.outages = row[6:]
        self.worker = worker

    @property
    def key(self) -> dict[str, Any]:
        """What ``MINE`` asks for."""
        return {"id": self.id, "worker": self.worker, "attempts": self.attempts}


class HeldClaim(Claim):
    """The claim to a job that this worker runs."""

    def __init__(self, run: Run, is_sure: Callable[[], bool]) -> None:
        self.run = run
        self._is_sure = is_sure
        self._lost = Event()

    def lose(self) -> None:
        """Note that the job is another's now."""
        self._lost.set()

    @property
    def is_lost(self) -> bool:
        """Whether the job is known to be another's."""
        return self._lost.is_set()

    def ensure(self) -> None:
        while not self._lost.is_set():
            if self._is_sure():
                return
            self._lost.wait(0.1)
        raise Lost

    def confirm(self) -> None:
        if not self._lost.is_set():
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT FROM procrastinate_jobs WHERE {MINE} FOR SHARE", self.run.key)
                if cursor.rowcount == 1:
                    return
        self.lose()
        raise Lost

    def insist(self, write: Callable[[], None]) -> None:
        while True:
            try:
                write()
            except Exception as error:
                if not jobs.is_trouble(error):
                    raise
                logger.warning("result_waits", job=self.run.task, id=self.run.id, error=told(error))
                release_connection()
                if self._lost.wait(AGAIN_S):
                    raise Lost from None
            else:
                return


def told(error: BaseException) -> str:
    """An error as a text that the database takes."""
    return _storable(f"{type(error).__name__}: {error}")


def _storable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:2000])
