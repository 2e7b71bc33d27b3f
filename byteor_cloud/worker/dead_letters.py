"""Jobs that cannot continue: dead letters, their retries, and what else keeps a job from running."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from byteor_cloud.worker.jobs import KILLS, Job, enqueue, is_queued

MOST_DEAD_LETTERS = 1_000  # for each organization in each lane; the newest are kept
DEAD_LETTER_DAYS = 90
EVENT_DAYS = 7  # how long procrastinate's events of a waiting job's retries are kept


def resume(job: Job, *, organization: UUID | None, serial: str) -> bool:
    """Retry the dead letter of this kind and ``serial`` key, or enqueue the job if there is none. Returns whether.

    Does nothing if such a job waits or runs, or if it killed its process too often. The caller holds a lock that
    concurrent callers wait for.
    """
    if is_queued(type(job), serial):
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, byteor_kills FROM procrastinate_jobs WHERE lock = %s AND task_name = %s AND status = 'failed'"
            " ORDER BY byteor_kills DESC, id DESC LIMIT 1",
            [serial, job.name],
        )
        dead = cursor.fetchone()
    if dead is None:
        enqueue(job, organization=organization, serial=serial)
        return True
    return dead[1] < KILLS and retry_dead_letter(dead[0])


def retry_dead_letter(job_id: int) -> bool:
    """Requeue a dead letter with all its attempts. Returns False if a job with the same ``once`` key already waits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_jobs dead SET status = 'todo', scheduled_at = NULL, worker_id = NULL,"
            " byteor_errors = 0, byteor_kills = 0, byteor_outages = 0"
            " WHERE id = %s AND status = 'failed' AND NOT EXISTS ("
            "  SELECT FROM procrastinate_jobs twin WHERE twin.status = 'todo'"
            "  AND twin.queueing_lock = dead.queueing_lock)",
            [job_id],
        )
        return bool(cursor.rowcount)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason why work cannot continue: its job is a dead letter, or waits until database or storage is available."""

    task: str
    is_dead: bool
    error: str

    @property
    def sentence(self) -> str:
        """The obstacle as a sentence for people."""
        error = self.error.rstrip(".")
        if self.is_dead:
            return f"The job {self.task} failed for good and can be retried in the console: {error}."
        return f"The job {self.task} waits until the control plane's database and storage are available: {error}."


def find_obstacles(serials: Collection[str]) -> dict[str, Obstacle]:
    """Return the obstacle of each of these ``serial`` keys whose jobs cannot continue."""
    if not serials:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT lock, task_name, status = 'failed', byteor_error FROM procrastinate_jobs"
            " WHERE lock = ANY(%s) AND status IN ('todo', 'doing', 'failed')"
            " AND (status = 'failed' OR byteor_outages > 0)"
            " ORDER BY status = 'failed', id",
            [list(serials)],
        )
        return {serial: Obstacle(*row) for serial, *row in cursor.fetchall()}


def delete_old_jobs() -> None:
    """Delete dead letters that are too old or too many, and old events of the queue."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM procrastinate_jobs job WHERE status NOT IN ('todo', 'doing') AND NOT EXISTS ("
            " SELECT FROM procrastinate_events event WHERE event.job_id = job.id"
            " AND event.at >= now() - make_interval(days => %s))",
            [DEAD_LETTER_DAYS],
        )
        cursor.execute(
            "DELETE FROM procrastinate_jobs WHERE id IN (SELECT id FROM ("
            " SELECT id, row_number() OVER (PARTITION BY queue_name ORDER BY id DESC) AS rank"
            " FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')) AS dead WHERE rank > %s)",
            [MOST_DEAD_LETTERS],
        )
        # The metrics need the events ``deferred``, and the deletion of old dead letters above needs ``failed``.
        cursor.execute(
            "DELETE FROM procrastinate_events WHERE type NOT IN ('deferred', 'failed')"
            " AND at < now() - make_interval(days => %s)",
            [EVENT_DAYS],
        )
