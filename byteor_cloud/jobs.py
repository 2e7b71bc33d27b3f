"""The queue: jobs are enqueued in the transaction of the change that wants them, and kept in procrastinate's tables.

A job belongs to a lane and to an organization. ``byteor_cloud.worker`` runs them.
"""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, dataclass_transform
from uuid import UUID

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from django.db import InterfaceError, OperationalError, connection, transaction

from byteor_cloud.errors import Unavailable

ATTEMPTS = 5  # of a job that fails by itself: the first run and four retries, after 3, 9, 27 and 81 s
KILLS = 10  # so often the process may be killed in the same job before it is a dead letter
MOST_DEAD_LETTERS = 1_000  # of one organization in one lane; the newest are kept
DEAD_LETTER_DAYS = 90
EVENT_DAYS = 7  # how long the log of a waiting job's retries goes back
# A periodic job that comes again so soon is not retried: the next one is its retry.
_COMES_SOON_S = 60


class Lane(StrEnum):
    """A queue with slots of its own in each worker: what waits in one lane holds up nothing in another.

    Within a lane organizations take turns: a free slot goes to the one that was served longest ago, however many
    jobs others have waiting, and one organization holds at most half of a worker's slots (``share``). The second
    rule keeps a slot for the others when one organization's jobs run for long.
    """

    RELEASES = "release"
    HOUSEKEEPING = "housekeeping"  # the installation's own short jobs, which must come on time: sealing, sweeps
    CLEANING = "cleanup"  # long jobs that nobody waits for: purges, retention
    INGEST = "ingest"
    REPLAY = "replay"
    WEBHOOKS = "webhook"  # jobs that wait for strangers on the network


# Jobs of one worker process at once. Each may hold a database connection (``database.WORKER_THREADS``).
SLOTS: dict[Lane, int] = {
    Lane.RELEASES: 4,
    Lane.HOUSEKEEPING: 2,
    Lane.CLEANING: 2,
    Lane.INGEST: 2,
    Lane.REPLAY: 2,
    Lane.WEBHOOKS: 4,
}
INSTALLATION = "installation"


def queue_of(lane: Lane, organization: UUID | None) -> str:
    """The queue of one organization in a lane; of the installation itself for None.

    Kept to 40 characters: PostgreSQL's notification channel of a queue is procrastinate's prefix and this name.
    """
    return f"{lane}:{organization.hex if organization else INSTALLATION}"


def share(queue: str) -> int:
    """How many slots of a worker the jobs of this queue may hold at once."""
    lane, _, owner = queue.partition(":")
    slots = SLOTS[Lane(lane)]
    return slots if owner == INSTALLATION else max(1, slots // 2)


class Lost(BaseException):
    """The job was taken over by another worker. No ``Exception``, so that nobody takes it for the job's own failure."""


class Claim:
    """What a worker has of the job that it runs. This one cannot be lost: for a job that is run by hand."""

    def ensure(self) -> None:
        """Return when the job is surely still this worker's; wait while that cannot be known. Raises Lost."""

    def confirm(self) -> None:
        """Keep the job this worker's until the current transaction ends. Raises Lost."""

    def insist(self, write: Callable[[], None]) -> None:
        """Run ``write``, again and again while the database fails: for a result that cannot be had twice.

        Raises Lost, and what ``write`` raises for another reason.
        """
        write()


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Why a job is a dead letter now: its process was ``killed`` too often, or it failed with ``error``."""

    killed: bool
    error: str


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Job:
    """A job to enqueue. Each subclass declares one kind of job; its fields are the arguments, stored as JSON.

    The ``jobs.py`` of each app declares its kinds, and those that it enqueues for an app above it. A job that waits
    during an upgrade has the name and the arguments of the old release: change either only with a migration.
    """

    name: ClassVar[str]
    lane: ClassVar[Lane]

    def __init_subclass__(cls, *, name: str, lane: Lane) -> None:
        super().__init_subclass__()
        cls.name, cls.lane = name, lane
        dataclass(frozen=True, kw_only=True)(cls)


@dataclass(frozen=True, slots=True)
class Periodic:
    """A kind of job without arguments that workers enqueue themselves, and of which one runs at a time.

    It comes every ``every_s`` seconds of Unix time, ``at_s`` after each multiple.
    """

    name: str
    every_s: int
    at_s: int = 0
    lane: Lane = Lane.HOUSEKEEPING


@dataclass(frozen=True, slots=True)
class Kind:
    """How jobs of one name are run. Both functions take the job's stored arguments by name."""

    run: Callable[..., None]  # takes the claim first
    gave_up: Callable[..., None] | None = None  # takes the ``GivenUp`` first
    periodic: Periodic | None = None

    @property
    def comes_soon(self) -> bool:
        """Whether it comes again so soon that a retry would only be in the way."""
        return self.periodic is not None and self.periodic.every_s <= _COMES_SOON_S


KINDS: dict[str, Kind] = {}


def _register(name: str, kind: Kind) -> None:
    if name in KINDS:
        raise ValueError(f"A function for the job {name} is registered already.")
    KINDS[name] = kind


def runs[J: Job](
    job: type[J], *, gave_up: Callable[[GivenUp, J], None] | None = None
) -> Callable[[Callable[[J], None]], Callable[[J], None]]:
    """Register the decorated function to run jobs of this kind.

    A job that fails by itself is retried ``ATTEMPTS`` times in all, one whose process is killed ``KILLS`` times, and
    while database or storage are in trouble for as long as it takes. Then it is left as a dead letter, and
    ``gave_up(GivenUp, job)`` is called in the transaction that says so.
    """

    def register(function: Callable[[J], None]) -> Callable[[J], None]:
        runs_claimed(job, gave_up=gave_up)(lambda _, given: function(given))
        return function

    return register


def runs_claimed[J: Job](
    job: type[J], *, gave_up: Callable[[GivenUp, J], None] | None = None
) -> Callable[[Callable[[Claim, J], None]], Callable[[Claim, J], None]]:
    """As ``runs``, for a function that takes the claim first, since it must not write after the job was taken over."""

    def register(function: Callable[[Claim, J], None]) -> Callable[[Claim, J], None]:
        def run(claim: Claim, /, **arguments: str) -> None:
            function(claim, job(**arguments))

        def give_up(why: GivenUp, /, **arguments: str) -> None:
            if gave_up is not None:
                gave_up(why, job(**arguments))

        _register(job.name, Kind(run, give_up))
        return function

    return register


def runs_by_itself(periodic: Periodic) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated function to run the periodic job."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        _register(periodic.name, Kind(lambda _: function(), periodic=periodic))
        return function

    return register


# A job that killed its process too often waits for a person; new ones of the same work would only do it again.
_NOT_CONDEMNED = """
NOT EXISTS (SELECT FROM procrastinate_jobs dead
            WHERE dead.status = 'failed' AND dead.lock = %(serial)s AND dead.task_name = %(task)s
              AND dead.byteor_kills >= %(kills)s)
"""
_ENQUEUE = f"""
INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)
SELECT %(queue)s, %(task)s, %(serial)s, %(once)s, %(arguments)s::jsonb WHERE {_NOT_CONDEMNED}
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
"""
_ENQUEUE_TICK = f"""
SELECT procrastinate_defer_periodic_job_v2(%(queue)s, %(task)s, %(task)s, %(task)s, 0, '', %(tick)s, '{{}}')
WHERE {_NOT_CONDEMNED}
"""


def enqueue(job: Job, *, organization: UUID | None, once: str | None = None, serial: str | None = None) -> None:
    """Enqueue the job in the current transaction, on behalf of the organization (None: of the installation).

    ``serial``: jobs of that key run one at a time. ``once``: no second job of that key waits beside one that waits
    already. A job that another transaction enqueued may start before this one commits and so miss its change; the
    change is then announced again after the commit. Nothing is enqueued while a job of the same name and ``serial``
    is a dead letter because it killed its process.
    """
    values: dict[str, Any] = {
        "queue": queue_of(job.lane, organization),
        "task": job.name,
        "serial": serial,
        "once": once,
        "arguments": json.dumps(vars(job)),
        "kills": KILLS,
    }

    def insert() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(_ENQUEUE, values)
            return bool(cursor.rowcount)

    if not insert() and once is not None:
        transaction.on_commit(insert)


def enqueue_tick(periodic: Periodic, tick: int) -> None:
    """Enqueue a periodic job for the tick (Unix time), unless somebody did or one waits already."""
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


_OWN_FAULT = {errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.E2BIG}


def is_trouble(error: BaseException | None) -> bool:
    """Whether the error, or one behind it, says that database or storage cannot be used just now.

    Such work is done later; it speaks against nothing that a job was given. A statement that the server cancelled
    is the job's own failure: it would be cancelled again.
    """
    while error is not None:
        if isinstance(error, psycopg.errors.QueryCanceled):
            return False
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return True  # a failover is under way
        if isinstance(error, OperationalError) and isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            return False
        database = (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError)
        if isinstance(error, (*database, Unavailable, BotoCoreError, ClientError)):
            return True
        # A file that is missing or in the way, or no archive, says something about the file.
        about_the_file = (FileNotFoundError, FileExistsError, IsADirectoryError, gzip.BadGzipFile)
        if isinstance(error, OSError) and not isinstance(error, about_the_file) and error.errno not in _OWN_FAULT:
            return True
        error = error.__cause__ or error.__context__
    return False


def retry_dead_letter(job_id: int) -> bool:
    """Put a dead letter back into the queue with all its attempts; False when the same work waits there already."""
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
class Held:
    """What holds a piece of work up: its job is a dead letter, or waits for database or storage to come back."""

    task: str
    is_dead: bool
    error: str

    @property
    def told(self) -> str:
        """A sentence for people."""
        error = self.error.rstrip(".")
        if self.is_dead:
            return f"The job {self.task} was given up and can be retried in the console: {error}."
        return f"The job {self.task} waits until the control plane's database and storage can be used: {error}."


def held_up(serials: Collection[str]) -> dict[str, Held]:
    """What holds up the jobs of those ``serial`` keys, of each that is held up."""
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
        return {serial: Held(*row) for serial, *row in cursor.fetchall()}


def forget_old() -> None:
    """Remove dead letters past their time or their number, and what else the queue has left behind."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM procrastinate_jobs job WHERE status NOT IN ('todo', 'doing') AND NOT EXISTS ("
            " SELECT FROM procrastinate_events event WHERE event.job_id = job.id"
            " AND event.at >= now() - make_interval(days => %s))",
            [DEAD_LETTER_DAYS],
        )
        cursor.execute(
            "DELETE FROM procrastinate_jobs WHERE id IN (SELECT id FROM ("
            " SELECT id, row_number() OVER (PARTITION BY queue_name ORDER BY id DESC) AS place"
            " FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')) AS dead WHERE place > %s)",
            [MOST_DEAD_LETTERS],
        )
        # The metrics ask since when a job waits, and the rule above when it died: these two stay.
        cursor.execute(
            "DELETE FROM procrastinate_events WHERE type NOT IN ('deferred', 'failed')"
            " AND at < now() - make_interval(days => %s)",
            [EVENT_DAYS],
        )
