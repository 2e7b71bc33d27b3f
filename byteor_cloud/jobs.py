"""The queue: jobs are enqueued in the transaction of the change that wants them (procrastinate, in PostgreSQL)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import structlog
from django.db import transaction
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy
from procrastinate.contrib.django import app
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.manager import JobManager
from procrastinate.periodic import PeriodicRegistry

from byteor_cloud.database import WORKER_THREADS

QUEUE = "default"
# For jobs that wait for strangers on the network: they have slots of their own, so that no other job waits for them.
OUTBOUND_QUEUE = "outbound"
SLOTS = {QUEUE: 4, OUTBOUND_QUEUE: WORKER_THREADS - 4}
ATTEMPTS = 5  # the first run and four retries, after 3, 9, 27 and 81 s
_ALIVE = 7_226_190_002  # the advisory lock of living workers: any number, the same in every process
logger = structlog.get_logger(__name__)
_RETRY = RetryStrategy(max_attempts=ATTEMPTS - 1, exponential_wait=3)


def job[**A](name: str, *, queue: str = QUEUE) -> Callable[[Callable[A, None]], Any]:
    """Declare the job ``name``: retried with back-off, then left as failed (the dead letters)."""
    return app.task(name=name, retry=_RETRY, pass_context=False, queue=queue)


def final_job(name: str) -> Callable[[Callable[..., None]], Any]:
    """As ``job``, for one that must know when its last attempt runs: the function gets ``last=True`` then."""

    def declare(function: Callable[..., None]) -> Any:
        def run(context: JobContext, /, **kwargs: Any) -> None:
            function(**kwargs, last=context.job.attempts >= ATTEMPTS - 1)

        return app.task(name=name, retry=_RETRY, pass_context=True)(run)

    return declare


def periodic(name: str, cron: str) -> Callable[[Callable[[], None]], Any]:
    """Declare the job ``name``, enqueued by every worker's clock at most once a tick (a sixth field is seconds)."""

    def declare(function: Callable[[], None]) -> Any:
        def run(timestamp: int) -> None:
            function()

        # One at a time, and none queues up behind a slow one.
        task = app.task(name=name, queueing_lock=name, lock=name)(run)
        return app.periodic(cron=cron)(task)

    return declare


def enqueue(name: str, *, once: str | None = None, serial: str | None = None, **arguments: Any) -> None:
    """Enqueue ``name`` in the current transaction. ``serial``: jobs of that key run one at a time.

    ``once``: no second job of that key waits beside one that waits already. A job that another transaction enqueued
    may start before this one commits and so miss its change; the change is then announced again after the commit.
    """
    deferrer = app.configure_task(name, lock=serial, queueing_lock=once, allow_unknown=True)
    try:
        with transaction.atomic():
            deferrer.defer(**arguments)
    except AlreadyEnqueued:

        def again() -> None:
            try:
                with transaction.atomic():
                    deferrer.defer(**arguments)
            except AlreadyEnqueued:
                pass

        transaction.on_commit(again)


class _Manager(JobManager):
    """Jobs that go back into the queue give their ``once`` up: another of that key may wait there, and two cannot.

    The database would refuse, and the job would count as running, and hold its ``serial``, for ever.
    """

    async def retry_job_by_id_async(
        self,
        job_id: int,
        retry_at: datetime,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Put the job back."""
        give_up = "UPDATE procrastinate_jobs SET queueing_lock = NULL WHERE id = %(job_id)s"
        await self.connector.execute_query_async(give_up, job_id=job_id)
        await super().retry_job_by_id_async(job_id, retry_at, priority, queue, lock)


def worker_app() -> App:
    """The app on a connection pool of its own; jobs still enqueue through Django's, within their transaction."""
    connector: DjangoConnector = app.connector  # type: ignore[assignment]  # which is what Django's app has
    worker = app.with_connector(connector.get_worker_connector())
    worker.job_manager = _Manager(worker.connector)
    return worker


async def run_queues(worker: App, **options: Any) -> None:
    """Run the jobs of each queue in its own slots until SIGTERM, or until one queue's worker ends by itself."""
    # The loop's own threads are fewer than the slots.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORKER_THREADS, "job"))
    outbound = worker.with_connector(worker.connector)
    outbound.job_manager = worker.job_manager
    outbound.periodic_registry = PeriodicRegistry()  # type: ignore[no-untyped-call]  # one clock a process
    workers = (
        worker.run_worker_async(queues=[QUEUE], concurrency=SLOTS[QUEUE], **options),
        # It looks by itself every second: a second listener would hold a second connection for ever.
        outbound.run_worker_async(
            queues=[OUTBOUND_QUEUE],
            concurrency=SLOTS[OUTBOUND_QUEUE],
            **{**options, "install_signal_handlers": False, "listen_notify": False, "fetch_job_polling_interval": 1.0},
        ),
    )
    tasks = [asyncio.create_task(each) for each in workers]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()  # which lets running jobs end
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@asynccontextmanager
async def tended(worker: App, *, every_s: float, after_s: float) -> AsyncIterator[None]:
    """While the block runs, put the jobs of workers that died back into the queue.

    Each worker holds a lock of its database session, which ends with its process. One that starts and finds nobody
    holding it knows that every job marked as running is an orphan. Beside other workers a job is one when its worker
    gave no sign of life for ``after_s`` seconds.
    """
    connector: PsycopgConnector = worker.connector  # type: ignore[assignment]  # which a worker's app has
    async with connector.pool.connection() as session:
        await session.set_autocommit(True)
        alone = await (await session.execute("SELECT pg_try_advisory_lock(%s)", [_ALIVE])).fetchone() == (True,)
        if alone:
            await _rescue(worker, after_s=0)
        # Taken before the other is given up: nobody finds the workers missing in between.
        await session.execute("SELECT pg_advisory_lock_shared(%s)", [_ALIVE])
        if alone:
            await session.execute("SELECT pg_advisory_unlock(%s)", [_ALIVE])
        rescuer = asyncio.create_task(_keep_rescuing(worker, every_s=every_s, after_s=after_s))
        try:
            yield
        finally:
            rescuer.cancel()
            with suppress(asyncio.CancelledError):
                await rescuer
            await session.close()  # and the lock with it; the pool makes itself another


async def _keep_rescuing(worker: App, *, every_s: float, after_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await _rescue(worker, after_s=after_s)
        except ConnectorException as error:
            logger.warning("rescue_failed", error=repr(error.__cause__ or error))


async def _rescue(worker: App, *, after_s: float) -> None:
    for stalled in await worker.job_manager.get_stalled_jobs(seconds_since_heartbeat=after_s):
        logger.warning("job_rescued", job=stalled.task_name, id=stalled.id)
        try:
            await worker.job_manager.retry_job(stalled)
        except ConnectorException as error:  # it has ended by itself meanwhile
            logger.warning("job_not_rescued", id=stalled.id, error=repr(error.__cause__ or error))
