"""Fetched jobs, and a worker's claim to a job that it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Event
from typing import Any

import structlog
from django.db import connection

from byteor_cloud.database.connections import release_connection
from byteor_cloud.worker import jobs
from byteor_cloud.worker.jobs import Claim, ClaimLost, JobLane

RETRY_S = 0.5  # seconds to wait after an outage or a failure of one of the worker's own steps
# Matches a fetched job while this worker owns it, but not a later attempt of the same job.
OWN_JOB = "id = %(id)s AND status = 'doing' AND worker_id = %(worker)s AND attempts = %(attempts)s"
logger = structlog.get_logger(__name__)


class FetchedJob:
    """A job that a worker has fetched. ``worker`` is the id of that worker, or None if its row was deleted."""

    def __init__(self, row: tuple[Any, ...], worker: int | None) -> None:
        self.id, self.queue, self.task, self.serial, self.arguments, self.attempts = row[:6]
        if isinstance(self.arguments, str):
            self.arguments = json.loads(self.arguments)
        self.errors, self.kills, self.outages, self.person = row[6:]
        self.worker = worker

    @property
    def key(self) -> dict[str, Any]:
        """The parameters of ``OWN_JOB``."""
        return {"id": self.id, "worker": self.worker, "attempts": self.attempts}

    @property
    def lane(self) -> str:
        """The name of the lane that the job's queue belongs to."""
        return str(self.queue).partition(":")[0]

    @property
    def owners(self) -> tuple[str, ...]:
        """The organization (or the installation), and the person behind the job if there is one."""
        owner = str(self.queue).partition(":")[2]
        return (owner, self.person) if self.person else (owner,)

    @property
    def shares(self) -> list[str]:
        """The names under which the job counts in its lane: its queue, and ``lane:person`` if a person is behind it."""
        return [f"{self.lane}:{owner}" for owner in self.owners]


class HeldClaim(Claim):
    """This worker's claim to a job, which another worker can take over."""

    def __init__(
        self,
        run: FetchedJob,
        is_sure: Callable[[], bool],
        move: Callable[[HeldClaim, JobLane], bool] = lambda *_: False,
    ) -> None:
        self.run = run
        self.owners = run.owners
        self._is_sure, self._move = is_sure, move
        self._lost = Event()

    def lose(self) -> None:
        """Mark the claim as lost, because another worker may run the job."""
        self._lost.set()

    @property
    def is_lost(self) -> bool:
        """Whether the claim is known to be lost."""
        return self._lost.is_set()

    @property
    def lane(self) -> JobLane:
        return JobLane(self.run.lane)

    def move_to(self, lane: JobLane) -> bool:
        return self.lane is lane or self._move(self, lane)

    def ensure(self) -> None:
        while not self._lost.is_set():
            if self._is_sure():
                return
            self._lost.wait(0.1)
        raise ClaimLost

    def confirm(self) -> None:
        if not self._lost.is_set():
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT FROM procrastinate_jobs WHERE {OWN_JOB} FOR SHARE", self.run.key)
                if cursor.rowcount == 1:
                    return
        self.lose()
        raise ClaimLost

    def retry_until_stored(self, write: Callable[[], None]) -> None:
        while True:
            try:
                write()
            except Exception as error:
                if not jobs.is_outage(error):
                    raise
                logger.warning("job_result_delayed", job=self.run.task, id=self.run.id, error=describe_error(error))
                release_connection()
                if self._lost.wait(RETRY_S):
                    raise ClaimLost from None
            else:
                return


def describe_error(error: BaseException) -> str:
    """Return the type and message of an error as printable text that the database can store."""
    return _storable(f"{type(error).__name__}: {error}")


def _storable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:2000])
