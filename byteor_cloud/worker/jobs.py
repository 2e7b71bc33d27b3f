"""The job queue, stored in procrastinate's tables. A job is enqueued in the transaction of the change that needs it.

Each job belongs to a lane and to an organization or the installation, and may name the person behind it.
``byteor_cloud.worker.process`` runs the jobs.
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

ATTEMPTS = 5  # the most runs of a job that raises errors: the first run and four retries, after 3, 9, 27 and 81 s
KILLS = 10  # a job becomes a dead letter when its process has been killed this many times
# Periodic jobs with at most this interval are not retried after an error or outage, because the next run comes soon.
_RECURS_SOON_S = 60


class JobLane(StrEnum):
    """A kind of work with its own slots in each worker, so that waiting jobs in one lane do not delay other lanes.

    Within a lane, organizations and people take turns: a free slot goes to the job whose organization and person were
    both served longest ago, even if others have many more jobs waiting. An organization, and a person in all of their
    organizations together, may occupy half of the lane's slots in a worker, and at least one (``max_slots``), so that
    long jobs leave slots for others. Jobs in a lane with one slot requeue themselves after some seconds.
    """

    RELEASES = "release"
    HOUSEKEEPING = "housekeeping"  # short jobs of the installation that must run on time: sealing, sweeps
    CLEANING = "cleanup"  # jobs that may be late, some of which are long: purges, retention
    INGEST = "ingest"
    REPLAY = "replay"
    LONG_REPLAYS = "longrun"  # replays that have used up the time of a short one (``Claim.move_to``)
    REGRESSIONS = "regress"
    WEBHOOKS = "webhook"  # jobs that wait for external servers
    MESSAGES = "message"  # short jobs that create notifications about events
    MAIL = "mail"  # jobs that wait for the mail server
    CHAT = "chat"  # jobs that wait for chat servers


# The number of jobs that a worker runs at the same time, by lane. Each job may occupy a database connection
# (``database.connections.WORKER_THREADS``).
SLOTS: dict[JobLane, int] = {
    JobLane.RELEASES: 4,
    JobLane.HOUSEKEEPING: 2,
    JobLane.CLEANING: 2,
    JobLane.INGEST: 2,
    JobLane.REPLAY: 2,
    JobLane.LONG_REPLAYS: 4,  # only one of them computes at a time (``byteor_cloud.worker.turns``)
    JobLane.REGRESSIONS: 1,  # a regression runs two child processes, and is requeued after 20 seconds
    JobLane.WEBHOOKS: 4,
    JobLane.MESSAGES: 2,
    JobLane.MAIL: 2,
    JobLane.CHAT: 4,
}
INSTALLATION = "installation"


def queue_of(lane: JobLane, organization: UUID | None) -> str:
    """Return the name of an organization's queue in a lane, or of the installation's if ``organization`` is None.

    The name has at most 40 characters, since procrastinate adds a prefix to form the name of a PostgreSQL channel.
    """
    return f"{lane}:{organization.hex if organization else INSTALLATION}"


def max_slots(queue: str) -> int:
    """Return the number of slots in a worker that the jobs of this queue may occupy.

    A person's jobs in all queues of a lane have the same limit, for which ``queue`` is ``lane:person``.
    """
    lane, _, owner = queue.partition(":")
    slots = SLOTS[JobLane(lane)]
    return slots if owner == INSTALLATION else max(1, slots // 2)


class ClaimLost(BaseException):
    """This worker no longer owns the job: any worker may have taken it over, or this worker stops and requeues it.

    Not an ``Exception``, so that jobs do not catch it by accident.
    """


class Requeued(BaseException):
    """The job stops without a failure and is requeued in ``lane``. Like ``ClaimLost``, not an ``Exception``."""

    def __init__(self, lane: JobLane) -> None:
        super().__init__(lane)
        self.lane = lane


class Claim:
    """The claim to a running job. A claim of this base class is never lost. Tests use it to run jobs directly."""

    owners: tuple[str, ...] = ()  # the organization and the person that the job's cost is charged to
    is_paused = False  # whether a stopping worker requeues the job instead of waiting for its end

    @property
    def lane(self) -> JobLane | None:
        """The lane in which the job currently runs, or None if a test runs the job directly."""
        return None

    def move_to(self, lane: JobLane) -> bool:
        """Move the running job to another lane if it gets a slot there. Returns whether the job is now in that lane."""
        return True

    def ensure(self) -> None:
        """Wait until it is certain that this worker still owns the job. Raises ClaimLost."""

    def confirm(self) -> None:
        """Lock the job for this worker until the current transaction ends. Raises ClaimLost."""

    def retry_until_stored(self, write: Callable[[], None]) -> None:
        """Run ``write``, and retry it during outages (``is_outage``). For results that cannot be produced again.

        Raises ClaimLost, and other errors of ``write``.
        """
        write()


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The reason why a job became a dead letter: its process was ``killed`` too often, or it failed with ``error``.

    ``cause`` is the exception that ``error`` describes, or None if the process was killed.
    """

    killed: bool
    error: str
    cause: BaseException | None = field(default=None, compare=False)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Job:
    """A job to enqueue. Each subclass declares one kind of job. Its fields are the arguments, stored as JSON.

    A kind is declared in the ``jobs.py`` of the lowest app that enqueues it, even if an app above it runs it. During an
    upgrade, workers of two releases run the jobs of both. Therefore new arguments need a new name; a worker skips names
    that it does not know.
    """

    name: ClassVar[str]
    lane: ClassVar[JobLane]

    def __init_subclass__(cls, *, name: str, lane: JobLane) -> None:
        super().__init_subclass__()
        cls.name, cls.lane = name, lane
        dataclass(frozen=True, kw_only=True)(cls)


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job without arguments that workers enqueue on a schedule, with its name as the ``serial`` key.

    It is due ``at_s`` seconds after each multiple of ``every_s`` seconds in Unix time.
    """

    name: str
    every_s: int
    at_s: int = 0
    lane: JobLane = JobLane.HOUSEKEEPING


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: its functions, which accept the stored arguments as keyword arguments, and its schedule."""

    run: Callable[..., None]  # a function whose first argument is the claim
    gave_up: Callable[..., None] | None = None  # a function whose first argument is the GivenUp
    periodic: Periodic | None = None

    @property
    def recurs_soon(self) -> bool:
        """Whether the next scheduled run is so soon that retries are unnecessary."""
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

    A job becomes a dead letter when it has raised errors ``ATTEMPTS`` times, or when its process has been killed
    ``KILLS`` times. ``gave_up(GivenUp, job)`` is then called in the same transaction. While the database or the storage
    is down, the job is retried without a limit.
    """

    def register(function: Callable[[J], None]) -> Callable[[J], None]:
        runs_claimed(job, gave_up=gave_up)(lambda _, given: function(given))
        return function

    return register


def runs_claimed[J: Job](
    job: type[J], *, gave_up: Callable[[GivenUp, J], None] | None = None
) -> Callable[[Callable[[Claim, J], None]], Callable[[Claim, J], None]]:
    """Register a function like ``runs``, but pass it the claim, with which it can avoid writes after a takeover."""

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
    """Register the decorated function to run a periodic job."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        _register(periodic.name, Kind(lambda _: function(), periodic=periodic))
        return function

    return register


# Nothing is enqueued if the same work is a dead letter because it killed its process. A new one may do the same.
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
    """Enqueue the job in the current transaction, for the organization or (None) for the installation itself.

    For jobs that may take long, pass the ``person`` behind the job, who may belong to several organizations. The job
    starts no earlier than ``after_s`` seconds after the start of the transaction.

    Jobs with the same ``serial`` key run one at a time. A job is not enqueued while another with the same ``once`` key
    is waiting. The waiting job may start before this transaction commits, and miss the change of this transaction.
    Therefore, after the commit, the job is enqueued unless another is still waiting then. Nothing is enqueued while a
    job with the same name and ``serial`` key is a dead letter because it killed its process.
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
    """Enqueue a periodic job for a tick (Unix time), unless its job was already enqueued.

    Nothing is enqueued while another with the job's name as its ``once`` key is waiting, or while the job is a dead
    letter because it killed its process.
    """
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


# Errors about a single name or file and not about the disk as a whole.
_FILE_ERRNOS = {
    errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.E2BIG, errno.EILSEQ, errno.EFBIG, errno.EOVERFLOW,
    errno.ENOTEMPTY,
}  # fmt: skip


def is_outage(error: BaseException | None) -> bool:
    """Return whether the error, or one of its causes, means that the database or the storage is unavailable.

    Such an error does not count as a failure of the job. A statement that the server canceled counts as the job's own
    failure, since it would be canceled again.
    """
    while error is not None:
        if isinstance(error, psycopg.errors.QueryCanceled):
            return False
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return True  # the database is failing over
        if isinstance(error, OperationalError) and isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            return False
        database = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)
        if isinstance(error, (*database, Unavailable, *object_store_errors())):
            return True
        if isinstance(error, NotStored):
            return False  # the storage responded
        # These errors concern one file and not the disk as a whole. FileNotFoundError is not among them, because it
        # means that somebody deleted a folder of temporary files, which the next attempt creates again.
        about_the_file = (FileExistsError, IsADirectoryError, gzip.BadGzipFile)
        if isinstance(error, OSError) and not isinstance(error, about_the_file) and error.errno not in _FILE_ERRNOS:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def is_queued(job: type[Job], serial: str) -> bool:
    """Return whether a job of this kind with this ``serial`` key is waiting or running."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT FROM procrastinate_jobs WHERE lock = %s AND task_name = %s AND status IN ('todo', 'doing')",
            [serial, job.name],
        )
        return bool(cursor.rowcount)
