"""The statements that find jobs, fetched jobs, and the claim of a worker to the job that it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Event
from typing import Any

import structlog
from django.db import connection

from byteor_cloud import jobs
from byteor_cloud.database import release_connection
from byteor_cloud.jobs import Claim, ClaimLost

RETRY_S = 0.5  # the wait after a database failure
# Matches the fetched job only while this worker owns it, and not a later attempt of the same job.
OWN_JOB = "id = %(id)s AND status = 'doing' AND worker_id = %(worker)s AND attempts = %(attempts)s"
# The lanes with due jobs. To ask for all lanes at once takes far less time than to fetch from each in vain.
DUE_LANES = """
SELECT lane FROM unnest(%(lanes)s::text[]) AS lane WHERE EXISTS (
    SELECT FROM procrastinate_jobs job
    WHERE job.status = 'todo' AND (job.scheduled_at IS NULL OR job.scheduled_at <= now())
      AND job.queue_name COLLATE "C" > lane || ':' AND job.queue_name COLLATE "C" < lane || ';'
)
"""
# The recursive part finds the lane's queues with waiting jobs one by one in the index. Each queue offers its oldest
# due job, and the queue that was served longest ago wins. A job whose process was killed does not run beside another
# such job for a minute: so the job that kills the process is identified, and the others, which were only present, end.
FETCH = """
WITH RECURSIVE queues(name) AS (
    (SELECT queue_name COLLATE "C" FROM procrastinate_jobs
     WHERE status = 'todo' AND queue_name COLLATE "C" > %(lane)s || ':' AND queue_name COLLATE "C" < %(lane)s || ';'
     ORDER BY queue_name COLLATE "C" LIMIT 1)
    UNION ALL
    SELECT (SELECT queue_name COLLATE "C" FROM procrastinate_jobs
            WHERE status = 'todo' AND queue_name COLLATE "C" > queues.name
              AND queue_name COLLATE "C" < %(lane)s || ';'
            ORDER BY queue_name COLLATE "C" LIMIT 1)
    FROM queues WHERE queues.name IS NOT NULL
), chosen AS (
    SELECT found.id FROM queues
    CROSS JOIN LATERAL (
        SELECT job.id FROM procrastinate_jobs job
        WHERE job.queue_name COLLATE "C" = queues.name AND job.status = 'todo'
          AND (job.scheduled_at IS NULL OR job.scheduled_at <= now())
          AND (job.byteor_kills = 0 OR NOT %(has_suspect)s
               OR job.scheduled_at <= now() - make_interval(secs => %(suspect_waits)s))
          AND NOT EXISTS (
              SELECT FROM procrastinate_jobs other
              WHERE other.lock = job.lock
                AND (other.status = 'doing' OR other.status = 'todo' AND other.id < job.id))
        ORDER BY job.queue_name COLLATE "C", job.id LIMIT 1  -- the order of the index
    ) AS found
    LEFT JOIN unnest(%(names)s::text[], %(turns)s::bigint[]) AS served(name, turn)
           ON served.name COLLATE "C" = queues.name
    WHERE queues.name IS NOT NULL AND queues.name <> ALL (%(full)s::text[])
    ORDER BY coalesce(served.turn, 0), found.id LIMIT 1
), taken AS (
UPDATE procrastinate_jobs job SET status = 'doing', worker_id = %(worker)s, attempts = attempts + 1
FROM chosen WHERE job.id = chosen.id AND job.status = 'todo'
RETURNING job.id, job.queue_name, job.task_name, job.lock, job.args, job.attempts,
          job.byteor_errors, job.byteor_kills, job.byteor_outages
)
SELECT taken.* FROM chosen LEFT JOIN taken ON true
"""
logger = structlog.get_logger(__name__)


class FetchedJob:
    """A job that a worker fetched, or whose worker has died (``worker`` is None)."""

    def __init__(self, row: tuple[Any, ...], worker: int | None) -> None:
        self.id, self.queue, self.task, self.serial, self.arguments, self.attempts = row[:6]
        if isinstance(self.arguments, str):
            self.arguments = json.loads(self.arguments)
        self.errors, self.kills, self.outages = row[6:]
        self.worker = worker

    @property
    def key(self) -> dict[str, Any]:
        """The parameters of ``OWN_JOB``."""
        return {"id": self.id, "worker": self.worker, "attempts": self.attempts}


class HeldClaim(Claim):
    """The claim of this worker to a job, which another worker can take over."""

    def __init__(self, run: FetchedJob, is_sure: Callable[[], bool]) -> None:
        self.run = run
        self._is_sure = is_sure
        self._lost = Event()

    def lose(self) -> None:
        """Mark the job as taken over by another worker."""
        self._lost.set()

    @property
    def is_lost(self) -> bool:
        """Whether another worker is known to have taken the job over."""
        return self._lost.is_set()

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
    """Return an error's type and message as printable text that the database can store."""
    return _storable(f"{type(error).__name__}: {error}")


def _storable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:2000])
