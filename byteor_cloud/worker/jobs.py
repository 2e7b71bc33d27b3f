"""The job queue, stored in procrastinate's tables. A job is enqueued in the transaction of the change that needs it.

Each job belongs to a lane and to an organization, and may name the person behind it. ``byteor_cloud.worker`` runs the
jobs.
"""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, dataclass_transform
from uuid import UUID

import psycopg
from django.db import InterfaceError, OperationalError, connection, transaction

from byteor_cloud.errors import NotStored, Unavailable
from byteor_cloud.storage.object_store_errors import object_store_errors

ATTEMPTS = 5  # runs of a job that raises errors: the first run and four retries, after 3, 9, 27 and 81 s
KILLS = 10  # how many times a job's process is killed before the job becomes a dead letter
# A periodic job with an interval of at most this is not retried: its next run takes the place of the retry.
_RECURS_SOON_S = 60


class JobLane(StrEnum):
    """A kind of work with its own slots in each worker, so that waiting jobs of one lane do not delay another.

    Within a lane organizations and people take turns: a free slot goes to the job whose organization and person were
    both served longest ago, even if others have many more jobs waiting. An organization, and a person in all their
    organizations together, hold at most half of a worker's slots (``max_slots``), so that long jobs leave slots for
    the others.
    """

    RELEASES = "release"
    HOUSEKEEPING = "housekeeping"  # short jobs of the installation that must run on time: sealing, sweeps
    CLEANING = "cleanup"  # long jobs that are not urgent: purges, retention
    INGEST = "ingest"
    REPLAY = "replay"
    LONG_REPLAYS = "longrun"  # replays that have used up what a short one may (``Claim.move_to``)
    WEBHOOKS = "webhook"  # jobs that wait for other people's servers


# How many jobs a worker process runs at once. Each may hold a database connection
# (``database.connections.WORKER_THREADS``).
SLOTS: dict[JobLane, int] = {
    JobLane.RELEASES: 4,
    JobLane.HOUSEKEEPING: 2,
    JobLane.CLEANING: 2,
    JobLane.INGEST: 2,
    JobLane.REPLAY: 2,
    JobLane.LONG_REPLAYS: 4,  # of these only one computes at a time (``byteor_cloud.worker.turns``)
    JobLane.WEBHOOKS: 4,
}
INSTALLATION = "installation"


def queue_of(lane: JobLane, organization: UUID | None) -> str:
    """Return the name of an organization's queue in a lane; None stands for the installation itself.

    The name has at most 40 characters, since procrastinate makes a PostgreSQL channel name from a prefix and this name.
    """
    return f"{lane}:{organization.hex if organization else INSTALLATION}"


def max_slots(queue: str) -> int:
    """Return how many slots of a worker the jobs of this queue may hold at once.

    The same limit applies to a person's jobs in all queues of a lane. They are named ``lane:person``.
    """
    lane, _, owner = queue.partition(":")
    slots = SLOTS[JobLane(lane)]
    return slots if owner == INSTALLATION else max(1, slots // 2)


class ClaimLost(BaseException):
    """Another worker took the job over. Not an ``Exception``, so that jobs do not catch it by accident."""


class Requeued(BaseException):
    """The job stops and is requeued in another lane, which is no failure. Not an ``Exception``, like ``ClaimLost``."""

    def __init__(self, lane: JobLane) -> None:
        super().__init__(lane)
        self.lane = lane


class Claim:
    """The claim to a job that is being run. A claim of this base class is for jobs run by hand, and is never lost."""

    owners: tuple[str, ...] = ()  # the organization and the person that the job's cost is charged to
    is_paused = False  # whether the job only waits for its turn, so that a stopping worker requeues it immediately

    @property
    def lane(self) -> JobLane | None:
        """The lane in which the job runs now; None if it is run by hand."""
        return None

    def move_to(self, lane: JobLane) -> bool:
        """Move the running job to another lane if there is a slot for it. Returns whether it is in that lane now."""
        return True

    def ensure(self) -> None:
        """Wait until it is certain that this worker still owns the job. Raises ClaimLost."""

    def confirm(self) -> None:
        """Lock the job for this worker until the current transaction ends. Raises ClaimLost."""

    def retry_until_stored(self, write: Callable[[], None]) -> None:
        """Run ``write`` and retry while the database is down. Use it for results that cannot be produced twice.

        Raises ClaimLost, and any other error of ``write``.
        """
        write()


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The reason why a job became a dead letter: its process was ``killed`` too often, or it failed with ``error``.

    ``cause`` is the exception that ``error`` describes.
    """

    killed: bool
    error: str
    cause: BaseException | None = field(default=None, compare=False)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Job:
    """A job to enqueue. Each subclass declares one kind of job; its fields are the arguments, stored as JSON.

    The ``jobs.py`` of each app declares the kinds that the app enqueues, even if a higher app runs them. Jobs that wait
    during an upgrade have the name and arguments of the old release, so change these only with a migration.
    """

    name: ClassVar[str]
    lane: ClassVar[JobLane]

    def __init_subclass__(cls, *, name: str, lane: JobLane) -> None:
        super().__init_subclass__()
        cls.name, cls.lane = name, lane
        dataclass(frozen=True, kw_only=True)(cls)


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job without arguments that workers enqueue on schedule. Only one of its kind runs at a time.

    It is due ``at_s`` seconds after each multiple of ``every_s`` seconds of Unix time.
    """

    name: str
    every_s: int
    at_s: int = 0
    lane: JobLane = JobLane.HOUSEKEEPING


@dataclass(frozen=True, slots=True)
class Kind:
    """The functions of one kind of job. Both take the job's stored arguments by name."""

    run: Callable[..., None]  # its first argument is the claim
    gave_up: Callable[..., None] | None = None  # its first argument is the ``GivenUp``
    periodic: Periodic | None = None

    @property
    def recurs_soon(self) -> bool:
        """Whether the next scheduled run comes so soon that a retry is not needed."""
        return self.periodic is not None and self.periodic.every_s <= _RECURS_SOON_S


KINDS: dict[str, Kind] = {}


def _register(name: str, kind: Kind) -> None:
    if name in KINDS:
        raise ValueError(f"A function for the job {name} is registered already.")
    KINDS[name] = kind


def runs[J: Job](
    job: type[J], *, gave_up: Callable[[GivenUp, J], None] | None = None
) -> Callable[[Callable[[J], None]], Callable[[J], None]]:
    """Register the decorated function to run jobs of this kind.

    A job that raises an error runs at most ``ATTEMPTS`` times, and a job whose process is killed at most ``KILLS``
    times. While the database or the storage is down it is retried without a limit. After the last attempt the job
    becomes a dead letter, and ``gave_up(GivenUp, job)`` is called in the same transaction.
    """

    def register(function: Callable[[J], None]) -> Callable[[J], None]:
        runs_claimed(job, gave_up=gave_up)(lambda _, given: function(given))
        return function

    return register


def runs_claimed[J: Job](
    job: type[J], *, gave_up: Callable[[GivenUp, J], None] | None = None
) -> Callable[[Callable[[Claim, J], None]], Callable[[Claim, J], None]]:
    """Register a function like ``runs`` does, but pass it the claim, so that it never writes after a takeover."""

    def register(function: Callable[[Claim, J], None]) -> Callable[[Claim, J], None]:
        def run(claim: Claim, /, **arguments: str) -> None:
            function(claim, job(**arguments))

        def give_up(why: GivenUp, /, **arguments: str) -> None:
            if gave_up is not None:
                gave_up(why, job(**arguments))

        _register(job.name, Kind(run, give_up))
        return function

    return register


def runs_periodically(periodic: Periodic) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated function to run the periodic job."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        _register(periodic.name, Kind(lambda _: function(), periodic=periodic))
        return function

    return register


# A job that killed its process too often waits for a person: a new job for the same work would kill its process too.
_NOT_BARRED = """
NOT EXISTS (SELECT FROM procrastinate_jobs dead
            WHERE dead.status = 'failed' AND dead.lock = %(serial)s AND dead.task_name = %(task)s
              AND dead.byteor_kills >= %(kills)s)
"""
_ENQUEUE = f"""
INSERT INTO procrastinate_jobs (queue_name, byteor_person, task_name, lock, queueing_lock, args, scheduled_at)
SELECT %(queue)s, %(person)s, %(task)s, %(serial)s, %(once)s, %(arguments)s::jsonb,
    now() + make_interval(secs => %(after_s)s)
WHERE {_NOT_BARRED}
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
"""
_ENQUEUE_TICK = f"""
SELECT procrastinate_defer_periodic_job_v2(%(queue)s, %(task)s, %(task)s, %(task)s, 0, '', %(tick)s, '{{}}')
WHERE {_NOT_BARRED}
"""


def enqueue(
    job: Job,
    *,
    organization: UUID | None,
    person: UUID | None = None,
    once: str | None = None,
    serial: str | None = None,
    after_s: float | None = None,
) -> None:
    """Enqueue the job in the current transaction for the organization (None: for the installation itself).

    A job that may take long names the ``person`` behind it, who may have several organizations. The job starts at the
    earliest ``after_s`` seconds after the transaction began.

    Jobs with the same ``serial`` key run one at a time. A job is not enqueued while another with the same ``once`` key
    waits. That other job may start before this transaction commits and miss its change, so the job is then enqueued
    again after the commit. Nothing is enqueued while a job of the same name and ``serial`` is a dead letter because it
    killed its process.
    """
    values: dict[str, Any] = {
        "queue": queue_of(job.lane, organization),
        "person": str(person or ""),
        "task": job.name,
        "serial": serial,
        "once": once,
        "arguments": json.dumps(vars(job)),
        "after_s": after_s,
        "kills": KILLS,
    }

    def insert() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(_ENQUEUE, values)
            return bool(cursor.rowcount)

    if not insert() and once is not None:
        transaction.on_commit(insert)


def enqueue_tick(periodic: Periodic, tick: int) -> None:
    """Enqueue a periodic job for the tick (Unix time), unless it was enqueued before or another one waits."""
    values: dict[str, Any] = {
        "queue": queue_of(periodic.lane, None),
        "task": periodic.name,
        "serial": periodic.name,
        "tick": tick,
        "kills": KILLS,
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM procrastinate_jobs WHERE queueing_lock = %s AND status = 'todo'", [periodic.name])
        if cursor.rowcount == 0:
            cursor.execute(_ENQUEUE_TICK, values)


# What a system says about one name or one file, and not about the disk as a whole.
_OWN_FAULT = {
    errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.E2BIG, errno.EILSEQ, errno.EFBIG, errno.EOVERFLOW,
    errno.ENOTEMPTY,
}  # fmt: skip


def is_outage(error: BaseException | None) -> bool:
    """Return whether the error, or one of its causes, means that the database or the storage is unavailable.

    The job is then retried later and is not to blame. A statement that the server cancelled counts as the job's own
    failure, since it would be cancelled again.
    """
    while error is not None:
        if isinstance(error, psycopg.errors.QueryCanceled):
            return False
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return True  # a failover is under way
        if isinstance(error, OperationalError) and isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            return False
        database = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)
        if isinstance(error, (*database, Unavailable, *object_store_errors())):
            return True
        if isinstance(error, NotStored):
            return False  # the storage answered
        # These errors concern one file and not the disk as a whole. A missing file is not among them: the job's files
        # are missing because somebody deleted a folder of temporary files, which the next attempt creates again.
        about_the_file = (FileExistsError, IsADirectoryError, gzip.BadGzipFile)
        if isinstance(error, OSError) and not isinstance(error, about_the_file) and error.errno not in _OWN_FAULT:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def is_queued(job: type[Job], serial: str) -> bool:
    """Return whether a job of this kind and ``serial`` key waits or runs."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM procrastinate_jobs WHERE lock = %s AND task_name = %s AND status IN ('todo', 'doing')",
            [serial, job.name],
        )
        return bool(cursor.rowcount)
