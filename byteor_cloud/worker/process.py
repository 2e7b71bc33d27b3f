"""The worker: it fetches and runs jobs, renews its heartbeat and maintains the queue."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

import psycopg
import structlog
from django.db import DatabaseError, IntegrityError, InterfaceError, connection, connections, transaction

from byteor_cloud.concurrency import deadline
from byteor_cloud.database import serving
from byteor_cloud.database.connections import direct_connection
from byteor_cloud.worker import host, jobs
from byteor_cloud.worker.claims import RETRY_S, FetchedJob, HeldClaim, describe_error
from byteor_cloud.worker.jobs import KINDS, ClaimLost, JobLane, Requeued
from byteor_cloud.worker.outcomes import move_job, record_outcome, take_over_job
from byteor_cloud.worker.statements import DUE_LANES, FETCH

HEARTBEAT_S = 2.0
STALLED_AFTER_S = 10.0
POLL_S = 1.0
GRACE_S = 20.0  # seconds that running jobs have to finish when the worker stops
_SURE_FOR = 0.7  # the fraction of STALLED_AFTER_S for which a worker may rely on its last heartbeat
_SUSPECT_WAITS_S = 60
_FETCHES = 3  # the number of attempts to fetch a job when other workers are faster

_DATABASE = (DatabaseError, InterfaceError, psycopg.Error)  # a raw connection raises psycopg's errors, not Django's

logger = structlog.get_logger(__name__)


class Worker:
    """A worker that runs jobs until ``stop``. Separate threads renew the heartbeat and maintain the queue."""

    def __init__(
        self,
        *,
        slots: Mapping[JobLane, int] = jobs.SLOTS,
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
        self._lock, self._moving = Lock(), Lock()
        self._id: int | None = None
        self._file: int | None = None
        self._sure_until = 0.0
        self._stopping, self._over = Event(), Event()
        self._wakes: tuple[socket.socket, socket.socket] | None = None  # the reading end and the writing end
        self._listener: psycopg.Connection[Any] | None = None
        self._turn = 0
        self._served: dict[str, int] = {}
        self._ticks: dict[str, int] = {}

    def stop(self) -> None:
        """Make ``run`` return when each running job has finished or has been requeued.

        ``run`` waits for running jobs during the grace period, except for paused jobs. Then it requeues the jobs that
        have not finished. Safe in any thread and in signal handlers.
        """
        self._stopping.set()
        self._wake_up()

    def run(self, *, until_idle: bool = False) -> None:
        """Run jobs until ``stop``, or with ``until_idle`` until none is due. Requeue jobs that do not end in time."""
        helpers = [
            Thread(target=self._repeat, args=(step, pause), daemon=True, name=step.__name__)
            for step, pause in (
                (self._renew, self._heartbeat_s),
                (self._maintain_queue, min(0.5, self._stalled_after_s / 4)),
            )
        ]
        self._wakes = socket.socketpair()
        for end in self._wakes:
            end.setblocking(False)
        try:
            self._insist(self._renew)
            self._insist(self._maintain_queue)
            for helper in helpers:
                helper.start()
            self._dispatch(until_idle=until_idle)
        finally:
            self._shut_down(helpers)

    # -- fetching ------------------------------------------------------------------------------------------------

    def _dispatch(self, *, until_idle: bool) -> None:
        is_down = False
        while not self._stopping.is_set():
            try:
                listener = self._listen()
                was_busy = bool(self._running)  # read before fetching, since a job that finishes may make others due
                if not self._start_due() and until_idle and not was_busy:
                    return
                self._sleep(listener, 0.05 if until_idle else POLL_S)
                is_down = False
            except _DATABASE as error:
                if not is_down:  # log an outage once, and not twice a second
                    logger.warning("fetching_failed", error=describe_error(error))
                is_down = True
                connection.close()
                self._stopping.wait(RETRY_S)

    def _listen(self) -> psycopg.Connection[Any]:
        """Return the connection that is notified of new jobs. Discard notifications that the next fetch handles."""
        if self._listener is None or self._listener.closed:
            session = direct_connection()
            try:
                serving.share(session)
                session.execute("LISTEN procrastinate_any_queue_v1")
            except psycopg.Error:
                session.close()
                raise
            self._listener = session
        self._listener.pgconn.consume_input()
        while self._listener.pgconn.notifies() is not None:
            pass
        return self._listener

    def _sleep(self, listener: psycopg.Connection[Any], seconds: float) -> None:
        """Wait up to ``seconds``. ``_wake_up``, or a notification since the last ``_listen``, ends the wait."""
        wakes = [] if self._wakes is None else [self._wakes[0]]
        select.select([listener.fileno(), *(end.fileno() for end in wakes)], [], [], seconds)
        for woken in wakes:
            with suppress(BlockingIOError):
                woken.recv(1024)

    def _wake_up(self) -> None:
        if self._wakes is not None:
            with suppress(OSError):  # a full socket wakes the thread anyway, and no thread waits for a closed one
                self._wakes[1].send(b"!")

    def _start_due(self) -> bool:
        """Start due jobs while there are free slots. Returns whether any were started."""
        found = False
        with connection.cursor() as cursor:
            cursor.execute(DUE_LANES, {"lanes": [lane.value for lane in self._slots]})
            due = {lane for (lane,) in cursor.fetchall()}
        for lane in self._slots:
            while lane in due and not self._stopping.is_set():
                with self._moving:
                    if (full := self._full_shares(lane)) is None or (run := self._fetch(lane, full)) is None:
                        break
                    self._start(run)
                found = True
        return found

    def _full_shares(self, lane: JobLane) -> list[str] | None:
        """Return the queues and people that may not get further slots in the lane, or None if no slot is free."""
        slots = self._slots.get(lane, 0)
        here = [claim.run for claim in list(self._running) if claim.run.lane == lane]
        if len(here) >= slots:
            return None
        busy = Counter(share for run in here for share in run.shares)
        return [share for share, n in busy.items() if n >= min(slots, jobs.max_slots(share))]

    def _move(self, claim: HeldClaim, lane: JobLane) -> bool:
        """Move a running job to a slot in another lane. Returns False if it gets no slot there. Raises ClaimLost."""
        with self._moving:
            full = self._full_shares(lane)
            if full is None or not set(full).isdisjoint(f"{lane}:{owner}" for owner in claim.owners):
                return False
            move_job(claim.run, lane)
        self._wake_up()  # the job's slot in the previous lane is free for another job
        return True

    def _fetch(self, lane: JobLane, full: list[str]) -> FetchedJob | None:
        worker = self._id
        values = {
            "lane": lane.value,
            "tasks": list(KINDS),
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
                    cursor.execute(FETCH, values)
                    row = cursor.fetchone()
            except IntegrityError:
                continue  # another worker started a job with the same ``serial``, or this worker's row was deleted
            if row is None:
                return None
            if row[0] is not None:  # the id is null if another worker claimed the job first
                return FetchedJob(row, worker)
        return None

    def _start(self, run: FetchedJob) -> None:
        self._turn += 1
        for share in run.shares:
            self._served.pop(share, None)
            self._served[share] = self._turn
        while len(self._served) > 10_000:  # shares that were served this long ago count as never served
            self._served.pop(next(iter(self._served)))
        claim = HeldClaim(run, lambda: time.monotonic() < self._sure_until, self._move)
        thread = Thread(target=self._work, args=(claim,), daemon=True, name=f"{run.task} {run.id}")
        with self._lock:
            self._running[claim] = thread
        thread.start()

    # -- a job ---------------------------------------------------------------------------------------------------

    def _work(self, claim: HeldClaim) -> None:
        run, error = claim.run, None
        try:
            KINDS[run.task].run(claim, **run.arguments)
        except BaseException as caught:
            error = caught
        try:
            if isinstance(error, ClaimLost):
                logger.warning("job_lost", job=run.task, id=run.id)
            else:
                self._record_outcome(claim, error)
        finally:
            connections.close_all()
            with self._lock:
                del self._running[claim]
            self._wake_up()

    def _record_outcome(self, claim: HeldClaim, error: BaseException | None) -> None:
        """Record the job's success or error. Retry until the database accepts it or the claim is lost."""
        run = claim.run
        if error is not None and not isinstance(error, Requeued):
            report = logger.warning if jobs.is_outage(error) else logger.error
            report("job_failed", job=run.task, id=run.id, exc_info=error)
        while not claim.is_lost:
            try:
                with transaction.atomic():
                    record_outcome(run, error)
            except _DATABASE as failure:
                logger.warning("job_end_delayed", job=run.task, id=run.id, error=describe_error(failure))
                connection.close()
                claim._lost.wait(RETRY_S)
            except ClaimLost:
                logger.warning("job_lost", job=run.task, id=run.id)
                return
            else:
                return

    # -- the heartbeat -------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Renew the heartbeat, or register this worker if it has no row. Marks the claims that it has lost."""
        with self._lock:
            claims = list(self._running)
        asked = time.monotonic()
        # If the connection hangs for longer than this, the heartbeat comes too late. A new connection may work.
        with deadline.limited(_SURE_FOR * self._stalled_after_s), connection.cursor() as cursor:
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
            own = {job_id for (job_id,) in cursor.fetchall()}
        for claim in claims:
            if claim.run.id not in own:
                claim.lose()
        self._sure_until = asked + _SURE_FOR * self._stalled_after_s

    def _lock_file(self, worker: int) -> None:
        """Lock a file that the kernel unlocks when this process dies, so that this host's other workers notice."""
        self._unlock_file()
        try:
            folder = host.lock_folder()
            folder.mkdir(parents=True, exist_ok=True)
            new = folder / f"{worker}.new"
            self._file = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(folder / str(worker))  # renamed last, so that no other worker finds the file before it is locked
        except OSError as error:  # without the file, only an old heartbeat shows that this process is dead
            logger.warning("worker_file_failed", error=describe_error(error))

    def _unlock_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                (host.lock_folder() / str(self._id)).unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    # -- the queue -----------------------------------------------------------------------------------------------

    def _maintain_queue(self) -> None:
        """Delete dead workers, take over their jobs, and enqueue periodic jobs."""
        host.delete_dead_workers(except_for=self._id)
        with connection.cursor() as cursor:
            # A worker that is renewing its heartbeat waits for the row lock and then sees whether its row was deleted.
            cursor.execute(
                "DELETE FROM procrastinate_workers WHERE last_heartbeat < now() - make_interval(secs => %s)",
                [self._stalled_after_s],
            )
        while take_over_job():
            self._wake_up()
        if self._has_clock:
            self._enqueue_ticks(int(time.time()))

    def _enqueue_ticks(self, now: int) -> None:
        for kind in list(KINDS.values()):
            if (job := kind.periodic) is None:
                continue
            tick = (now - job.at_s) // job.every_s * job.every_s + job.at_s
            if self._ticks.get(job.name) != tick:
                with suppress(IntegrityError):  # another worker was faster
                    jobs.enqueue_tick(job, tick)
                self._ticks[job.name] = tick

    # -- start and shutdown --------------------------------------------------------------------------------------

    def _insist(self, step: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                return step()
            except _DATABASE as error:
                logger.warning("database_unavailable", error=describe_error(error))
                connection.close()
                self._stopping.wait(RETRY_S)
        return None

    def _repeat(self, step: Callable[[], None], pause: float) -> None:
        wait = pause
        try:
            while not self._over.wait(wait):
                wait = pause
                try:
                    step()
                except Exception as error:
                    logger.warning("worker_step_failed", step=step.__name__, error=describe_error(error))
                    connection.close()
                    wait = min(pause, RETRY_S)
        finally:
            connections.close_all()

    def _shut_down(self, helpers: list[Thread]) -> None:
        """Wait for running jobs, requeue those that are paused or too slow, and delete this worker's row."""
        deadline = time.monotonic() + self._grace_s
        while self._running and time.monotonic() < deadline:
            for claim in list(self._running):
                if claim.is_paused:  # a paused job is unlikely to finish in time
                    claim.lose()
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
            logger.warning("worker_row_not_deleted", error=describe_error(error))
        if left:
            logger.warning("jobs_requeued", jobs=[claim.run.task for claim in left])
        if self._listener is not None:
            self._listener.close()
        connections.close_all()
        for end in self._wakes or ():
            end.close()
