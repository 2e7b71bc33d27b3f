"""The process that runs jobs: it fetches them lane by lane, shows that it lives, and takes over from workers that died.

A worker has a row with a heartbeat. Its jobs are taken over when that row is gone, and the row goes when the
heartbeat is too old, or when the kernel says that the process is dead (its file is no longer locked). Nothing else
counts: a worker whose database sessions were all ended goes on, and renews its heartbeat on a new one.

A worker that could not renew its heartbeat in time does not know whether its jobs are still its own. It does nothing
then that cannot be repeated (``Claim.ensure``), and whatever it writes at the end of a job checks the claim in the
same transaction (``Claim.confirm``).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import psycopg
import structlog
from django.conf import settings
from django.db import DatabaseError, IntegrityError, InterfaceError, connection, connections, transaction

from byteor_cloud import jobs
from byteor_cloud.jobs import KINDS, Claim, GivenUp, Kind, Lane, Lost

HEARTBEAT_S = 2.0
STALLED_AFTER_S = 10.0
POLL_S = 1.0
GRACE_S = 20.0  # that running jobs have to end in when the worker stops
_SURE_FOR = 0.7  # of the time until it counts as stalled, a worker may rely on its last heartbeat
_AGAIN_S = 0.5  # after trouble with the database
_LONGEST_WAIT_S = 60
_LONGEST_WAIT_AFTER_A_KILL_S = 15
_SUSPECT_WAITS_S = 60
_FETCHES = 3  # before another worker that is always faster is left alone

_DATABASE = (DatabaseError, InterfaceError, psycopg.Error)  # errors of a raw connection are not Django's

logger = structlog.get_logger(__name__)

# The queues of the lane that have waiting jobs are found one by one in the index. Each offers its oldest job that is
# due; the queue whose turn it is wins. A job in which a process was killed runs beside no other such job for a minute:
# then the one that does it is found, and the others, which only happened to be there, end.
_FETCH = """
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
# The worker's own job, as it was fetched; another one's, or a later run of it, is none of its business.
_MINE = "id = %(id)s AND status = 'doing' AND worker_id = %(worker)s AND attempts = %(attempts)s"
_ORPHANS = """
SELECT id, queue_name, task_name, lock, args, attempts, byteor_errors, byteor_kills, byteor_outages
FROM procrastinate_jobs WHERE status = 'doing' AND worker_id IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
"""


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
        """What ``_MINE`` asks for."""
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
                cursor.execute(f"SELECT FROM procrastinate_jobs WHERE {_MINE} FOR SHARE", self.run.key)
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
                logger.warning("result_waits", job=self.run.task, id=self.run.id, error=_told(error))
                jobs.release_connection()
                if self._lost.wait(_AGAIN_S):
                    raise Lost from None
            else:
                return


class Worker:
    """Runs jobs until it is told to stop. One thread fetches, one shows that it lives, one tends the queue."""

    def __init__(
        self,
        *,
        slots: Mapping[Lane, int] = jobs.SLOTS,
        heartbeat_s: float = HEARTBEAT_S,
        stalled_after_s: float = STALLED_AFTER_S,
        grace_s: float = GRACE_S,
        has_clock: bool = True,
    ) -> None:
        self._slots = slots
        self._heartbeat_s = heartbeat_s
        self._stalled_after_s = stalled_after_s
        self._grace_s = grace_s
        self._has_clock = has_clock
        self._running: dict[HeldClaim, Thread] = {}
        self._lock = Lock()
        self._id: int | None = None
        self._file: int | None = None
        self._sure_until = 0.0
        self._stopping, self._over = Event(), Event()
        self._wakes: tuple[socket.socket, socket.socket] | None = None  # to be read, and to be written
        self._notified = False
        self._listens_on: Any = None
        self._turn = 0
        self._served: dict[str, int] = {}
        self._ticks: dict[str, int] = {}

    def stop(self) -> None:
        """Have ``run`` return as soon as running jobs have ended; callable from anywhere, also a signal handler."""
        self._stopping.set()
        self._wake_up()

    def run(self, *, until_idle: bool = False) -> None:
        """Run jobs until ``stop``, or until nothing is due. Jobs that outlast the grace are put back, uncounted."""
        helpers = [
            Thread(target=self._repeat, args=(step, pause), daemon=True, name=step.__name__)
            for step, pause in ((self._renew, self._heartbeat_s), (self._tend, min(0.5, self._stalled_after_s / 4)))
        ]
        self._wakes = socket.socketpair()
        for end in self._wakes:
            end.setblocking(False)
        try:
            self._insist(self._renew)
            self._insist(self._tend)
            for helper in helpers:
                helper.start()
            self._dispatch(until_idle=until_idle)
        finally:
            self._end(helpers)

    # -- fetching ------------------------------------------------------------------------------------------------

    def _dispatch(self, *, until_idle: bool) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
                self._notified = False
                was_busy = bool(self._running)  # before: what ends now may be what others have waited for
                if not self._start_due() and until_idle and not was_busy:
                    return
                if not self._notified:
                    self._sleep(0.05 if until_idle else POLL_S)
            except _DATABASE as error:
                logger.warning("fetching_failed", error=_told(error))
                connection.close()
                self._stopping.wait(_AGAIN_S)

    def _listen(self) -> None:
        """Hear of new jobs, on whatever connection this thread has now; what was heard so far is answered now."""
        connection.ensure_connection()
        session: Any = connection.connection
        if session is not self._listens_on:
            session.add_notify_handler(self._note)
            session.execute("LISTEN procrastinate_any_queue_v1")
            self._listens_on = session
        session.pgconn.consume_input()
        while session.pgconn.notifies() is not None:
            pass

    def _note(self, _: object) -> None:
        self._notified = True

    def _sleep(self, seconds: float) -> None:
        wakes = [] if self._wakes is None else [self._wakes[0]]
        select.select([*wakes, self._listens_on.fileno()], [], [], seconds)
        for woken in wakes:
            with suppress(BlockingIOError):
                woken.recv(1024)

    def _wake_up(self) -> None:
        if self._wakes is not None:
            with suppress(OSError):  # full, so it wakes anyway; or closed, since nobody waits any more
                self._wakes[1].send(b"!")

    def _start_due(self) -> bool:
        """Start what is due and has a slot; whether anything was."""
        found = False
        for lane, slots in self._slots.items():
            while not self._stopping.is_set():
                busy = Counter(claim.run.queue for claim in list(self._running))
                if sum(n for queue, n in busy.items() if queue.startswith(f"{lane}:")) >= slots:
                    break
                full = [queue for queue, n in busy.items() if n >= min(slots, jobs.share(queue))]
                if (run := self._fetch(lane, full)) is None:
                    break
                self._start(run)
                found = True
        return found

    def _fetch(self, lane: Lane, full: list[str]) -> Run | None:
        worker = self._id
        values = {
            "lane": lane.value,
            "full": full,
            "names": list(self._served),
            "turns": list(self._served.values()),
            "has_suspect": any(claim.run.kills for claim in list(self._running)),
            "suspect_waits": _SUSPECT_WAITS_S,
            "worker": worker,
        }
        if worker is None:
            return None
        for _ in range(_FETCHES):
            try:
                with connection.cursor() as cursor:
                    cursor.execute(_FETCH, values)
                    row = cursor.fetchone()
            except IntegrityError:
                continue  # another worker has begun the job before it in its series, or this worker's row is gone
            if row is None:
                return None
            if row[0] is not None:  # else another worker has just taken it
                return Run(row, worker)
        return None

    def _start(self, run: Run) -> None:
        self._turn += 1
        self._served.pop(run.queue, None)
        self._served[run.queue] = self._turn
        if len(self._served) > 10_000:  # those that were served longest ago are as good as those that never were
            self._served.pop(next(iter(self._served)))
        claim = HeldClaim(run, lambda: time.monotonic() < self._sure_until)
        thread = Thread(target=self._work, args=(claim,), daemon=True, name=f"{run.task} {run.id}")
        with self._lock:
            self._running[claim] = thread
        thread.start()

    # -- a job ---------------------------------------------------------------------------------------------------

    def _work(self, claim: HeldClaim) -> None:
        run, error = claim.run, None
        try:
            if (kind := KINDS.get(run.task)) is None:
                raise LookupError(f"This worker knows no job named {run.task}.")
            kind.run(claim, **run.arguments)
        except BaseException as caught:
            error = caught
        try:
            if isinstance(error, Lost):
                logger.warning("job_lost", job=run.task, id=run.id)
            else:
                self._settle(claim, error)
        finally:
            connections.close_all()
            with self._lock:
                del self._running[claim]
            self._wake_up()

    def _settle(self, claim: HeldClaim, error: BaseException | None) -> None:
        """Tell the queue how the job ended, for as long as that takes and the job is this worker's."""
        run = claim.run
        if error is not None:
            report = logger.warning if jobs.is_trouble(error) else logger.error
            report("job_failed", job=run.task, id=run.id, exc_info=error)
        while not claim.is_lost:
            try:
                with transaction.atomic():
                    _note_end(run, error)
            except _DATABASE as trouble:
                logger.warning("job_end_waits", job=run.task, id=run.id, error=_told(trouble))
                connection.close()
                claim._lost.wait(_AGAIN_S)
            except Lost:
                logger.warning("job_lost", job=run.task, id=run.id)
                return
            else:
                return

    # -- a sign of life ------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Renew the heartbeat; learn which jobs are no longer this worker's."""
        with self._lock:
            claims = list(self._running)
        asked = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE procrastinate_workers SET last_heartbeat = now() WHERE id = %s", [self._id])
            if cursor.rowcount == 0:
                for claim in claims:
                    claim.lose()
                cursor.execute("INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")
                worker: int = cursor.fetchone()[0]
                self._lock_file(worker)
                self._id = worker
                claims = []
            cursor.execute("SELECT id FROM procrastinate_jobs WHERE worker_id = %s AND status = 'doing'", [self._id])
            mine = {job_id for (job_id,) in cursor.fetchall()}
        for claim in claims:
            if claim.run.id not in mine:
                claim.lose()
        self._sure_until = asked + _SURE_FOR * self._stalled_after_s

    def _lock_file(self, worker: int) -> None:
        """Lock a file that tells other workers on this machine, as soon as this process is dead, that it is."""
        self._unlock_file()
        try:
            folder = _folder()
            folder.mkdir(parents=True, exist_ok=True)
            new = folder / f"{worker}.new"
            self._file = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(folder / str(worker))  # nobody finds it before it is locked
        except OSError as error:  # then its death is noticed by the heartbeat
            logger.warning("worker_file_failed", error=_told(error))

    def _unlock_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                (_folder() / str(self._id)).unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    # -- the queue -----------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Take over from dead workers, and enqueue what comes by itself."""
        _bury_dead(except_for=self._id)
        with connection.cursor() as cursor:
            # One that renews its heartbeat at this moment waits for this row, and then finds it gone, or stays.
            cursor.execute(
                "DELETE FROM procrastinate_workers WHERE last_heartbeat < now() - make_interval(secs => %s)",
                [self._stalled_after_s],
            )
        while _take_over():
            self._wake_up()
        if self._has_clock:
            self._enqueue_ticks(int(time.time()))

    def _enqueue_ticks(self, now: int) -> None:
        for kind in list(KINDS.values()):
            if kind.every_s is None:
                continue
            tick = (now - kind.at_s) // kind.every_s * kind.every_s + kind.at_s
            if self._ticks.get(kind.name) != tick:
                with suppress(IntegrityError):  # another worker was faster
                    jobs.enqueue_tick(kind, tick)
                self._ticks[kind.name] = tick

    # -- beginning and end ---------------------------------------------------------------------------------------

    def _insist(self, step: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                return step()
            except _DATABASE as error:
                logger.warning("database_not_there", error=_told(error))
                connection.close()
                self._stopping.wait(_AGAIN_S)
        return None

    def _repeat(self, step: Callable[[], None], pause: float) -> None:
        wait = pause
        try:
            while not self._over.wait(wait):
                wait = pause
                try:
                    step()
                except Exception as error:
                    logger.warning("worker_step_failed", step=step.__name__, error=_told(error))
                    connection.close()
                    wait = min(pause, _AGAIN_S)
        finally:
            connections.close_all()

    def _end(self, helpers: list[Thread]) -> None:
        """Let running jobs end, put back those that do not, and take leave."""
        deadline = time.monotonic() + self._grace_s
        while self._running and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            left = list(self._running)
        for claim in left:
            claim.lose()
        self._over.set()
        for helper in helpers:
            if helper.is_alive():
                helper.join(2)
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE procrastinate_jobs SET status = 'todo', attempts = attempts - 1, worker_id = NULL,"
                    " queueing_lock = NULL, abort_requested = false WHERE worker_id = %s AND status = 'doing'",
                    [self._id],
                )
                cursor.execute("DELETE FROM procrastinate_workers WHERE id = %s", [self._id])
            self._unlock_file()
        except _DATABASE as error:
            logger.warning("leave_not_taken", error=_told(error))
        if left:
            logger.warning("jobs_put_back", jobs=[claim.run.task for claim in left])
        connections.close_all()
        for end in self._wakes or ():
            end.close()


# -- what is written of a job ----------------------------------------------------------------------------------------


def _note_end(run: Run, error: BaseException | None) -> None:
    """Say in the current transaction how the job ended. Raises Lost."""
    kind = KINDS.get(run.task)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM procrastinate_jobs WHERE {_MINE} FOR UPDATE", run.key)
        if cursor.rowcount == 0:
            raise Lost
    if error is None:
        _remove(run)
        _remove_dead(run)  # it has healed
    elif jobs.is_trouble(error):
        if kind is not None and kind.comes_soon:
            _remove(run)
        else:
            wait = min(_LONGEST_WAIT_S, 2**run.outages)
            _again(run, _told(error), wait, outages=run.outages + 1, attempts=run.attempts - 1)
    elif run.errors + 1 >= jobs.ATTEMPTS or (kind is not None and kind.comes_soon):
        _give_up(run, kind, GivenUp(killed=False, error=_told(error)), errors=run.errors + 1)
    else:
        _again(run, _told(error), 3 ** (run.errors + 1), errors=run.errors + 1)


def _take_over() -> bool:
    """Put one job of a worker that is gone back into the queue, or among the dead letters; False without any."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_ORPHANS)
            if (row := cursor.fetchone()) is None:
                return False
        run = Run(row, None)
        kills = run.kills + 1
        logger.warning("job_taken_over", job=run.task, id=run.id, kills=kills)
        why = f"The process that ran it was killed {kills} times."
        if kills >= jobs.KILLS:
            _give_up(run, KINDS.get(run.task), GivenUp(killed=True, error=why), kills=kills)
        else:
            # At once after the first time: most jobs were only there by chance.
            wait = 0 if kills == 1 else min(_LONGEST_WAIT_AFTER_A_KILL_S, 2 ** (kills - 2))
            _again(run, why, wait, kills=kills)
    return True


def _again(
    run: Run,
    error: str,
    wait_s: float,
    *,
    errors: int | None = None,
    kills: int | None = None,
    outages: int | None = None,
    attempts: int | None = None,
) -> None:
    """Back into the queue. It gives its ``once`` key up: another of that key may wait there, and two cannot."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL, queueing_lock = NULL,"
            " abort_requested = false, attempts = %s, scheduled_at = now() + make_interval(secs => %s),"
            " byteor_errors = %s, byteor_kills = %s, byteor_outages = %s, byteor_error = %s WHERE id = %s",
            [
                run.attempts if attempts is None else attempts,
                wait_s,
                run.errors if errors is None else errors,
                run.kills if kills is None else kills,
                run.outages if outages is None else outages,
                error,
                run.id,
            ],
        )


def _give_up(run: Run, kind: Kind | None, why: GivenUp, *, errors: int | None = None, kills: int | None = None) -> None:
    """Leave the job as a dead letter, the only one of its work, with what follows from that."""
    _remove_dead(run)
    with connection.cursor() as cursor:
        if why.killed:  # what waits behind it would only do the same
            cursor.execute(
                "DELETE FROM procrastinate_jobs WHERE status = 'todo' AND lock = %s AND task_name = %s",
                [run.serial, run.task],
            )
        cursor.execute(
            "UPDATE procrastinate_jobs SET status = 'failed', worker_id = NULL, abort_requested = false,"
            " byteor_errors = %s, byteor_kills = %s, byteor_error = %s WHERE id = %s",
            [run.errors if errors is None else errors, run.kills if kills is None else kills, why.error, run.id],
        )
    logger.error("job_given_up", job=run.task, id=run.id, killed=why.killed, error=why.error)
    if kind is None or kind.gave_up is None:
        return
    try:
        with transaction.atomic():
            kind.gave_up(why, **run.arguments)
    except Exception as error:
        if jobs.is_trouble(error):
            raise  # all of it is done again
        logger.exception("giving_up_failed", job=run.task, id=run.id)


def _remove(run: Run) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [run.id])


def _remove_dead(run: Run) -> None:
    """Remove the dead letters of the same work."""
    if run.serial is not None:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM procrastinate_jobs WHERE status = 'failed' AND lock = %s AND task_name = %s",
                [run.serial, run.task],
            )


def _told(error: BaseException) -> str:
    """An error as a text that the database takes."""
    return _storable(f"{type(error).__name__}: {error}")


def _storable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:2000])


# -- workers of this machine -----------------------------------------------------------------------------------------


def _folder() -> Path:
    """Where the workers of this machine's present boot, on this database, keep their files."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = platform.node()
    known = connection.settings_dict
    told = "|".join(str(part) for part in (boot, known["HOST"], known["PORT"], known["NAME"]))
    folder: Path = settings.CONFIG.data_dir / "workers" / hashlib.sha256(told.encode()).hexdigest()[:16]
    return folder


def _bury_dead(*, except_for: int | None) -> None:
    """Remove the rows of workers whose process on this machine is dead: the kernel has unlocked their files."""
    try:
        paths = [path for path in _folder().iterdir() if path.name.isdigit() and path.name != str(except_for)]
    except OSError:
        return  # their heartbeats tell
    for path in paths:
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # it lives
        else:
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM procrastinate_workers WHERE id = %s", [int(path.name)])
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(file)
