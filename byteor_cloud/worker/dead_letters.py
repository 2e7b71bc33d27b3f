"""Jobs that cannot continue: dead letters and their retries, and other obstacles."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from byteor_cloud.worker.jobs import KILLS, Job, enqueue, is_queued

MAX_DEAD_LETTERS = 1_000  # the limit for each queue; the jobs that were enqueued last are kept
DEAD_LETTER_DAYS = 90
EVENT_DAYS = 7  # days after which procrastinate's events other than ``deferred`` and ``failed`` are deleted


def resume(job: Job, *, organization: UUID | None, serial: str) -> bool:
    """Retry the dead letter with this kind and ``serial`` key, or enqueue the job if there is none.

    Do nothing and return False if such a job is waiting or running, if the dead letter killed its process too often, or
    if ``retry_dead_letter`` refuses it. The caller must hold a lock that concurrent callers wait for.
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
    """Requeue a dead letter and reset its failures.

    Returns False if there is no such dead letter, or if a job with the same ``once`` key is waiting.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_jobs dead SET status = 'todo', scheduled_at = now(), worker_id = NULL,"
            " byteor_errors = 0, byteor_kills = 0, byteor_outages = 0"
            " WHERE id = %s AND status = 'failed' AND NOT EXISTS ("
            "  SELECT FROM procrastinate_jobs twin WHERE twin.status = 'todo'"
            "  AND twin.queueing_lock = dead.queueing_lock)",
            [job_id],
        )
        return bool(cursor.rowcount)


@dataclass(frozen=True, slots=True)
class Troubles:
    """How often a job raised an error, was killed, and had to wait for the database or the storage.

    ``outages`` counts only the waits since the job was last requeued after an error or by ``Requeued``. ``error``
    describes the latest error, kill or outage; it is empty if there was none, or none since a ``Requeued``.
    """

    errors: int
    kills: int
    outages: int
    error: str


def read_troubles(job_id: int) -> Troubles | None:
    """Return the troubles of a job, or None if it no longer exists. ``retry_dead_letter`` resets the counts."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT byteor_errors, byteor_kills, byteor_outages, byteor_error FROM procrastinate_jobs WHERE id = %s",
            [job_id],
        )
        row = cursor.fetchone()
    return row and Troubles(*row)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason why a job cannot continue: it is a dead letter, or it waits for the database or the storage to work."""

    task: str
    is_dead: bool
    error: str

    @property
    def sentence(self) -> str:
        """The obstacle as a sentence for users."""
        error = self.error.rstrip(".")
        if self.is_dead:
            return f"The job {self.task} failed permanently and can be retried in the console: {error}."
        return f"The job {self.task} is waiting until the control plane's database and storage are available: {error}."


def find_obstacles(serials: Collection[str]) -> dict[str, Obstacle]:
    """Return one obstacle for each of these ``serial`` keys whose jobs have any. Other keys are left out.

    A job that is running again after an outage still counts as waiting.
    """
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
    """Delete dead letters that are too old or too many, and most of the queue's old events."""
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
            [MAX_DEAD_LETTERS],
        )
        # The metrics need the ``deferred`` events, and the deletion of old dead letters above needs ``failed`` events.
        cursor.execute(
            "DELETE FROM procrastinate_events WHERE type NOT IN ('deferred', 'failed')"
            " AND at < now() - make_interval(days => %s)",
            [EVENT_DAYS],
        )
