"""The queue: jobs are enqueued in the transaction of the change that wants them (procrastinate, in PostgreSQL)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from django.db import transaction
from procrastinate import App, JobContext, RetryStrategy
from procrastinate.contrib.django import app
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.exceptions import AlreadyEnqueued

ATTEMPTS = 5  # the first run and four retries, after 3, 9, 27 and 81 s
logger = structlog.get_logger(__name__)
_RETRY = RetryStrategy(max_attempts=ATTEMPTS - 1, exponential_wait=3)


def job[**A](name: str) -> Callable[[Callable[A, None]], Any]:
    """Declare the job ``name``: retried with back-off, then left as failed (the dead letters)."""
    return app.task(name=name, retry=_RETRY, pass_context=False)


def final_job(name: str) -> Callable[[Callable[..., None]], Any]:
    """As ``job``, for one that must know when its last attempt runs: the function gets ``last=True`` then."""

    def declare(function: Callable[..., None]) -> Any:
        def run(context: JobContext, /, **kwargs: Any) -> None:
            function(**kwargs, last=context.job.attempts >= ATTEMPTS - 1)

        return app.task(name=name, retry=_RETRY, pass_context=True)(run)

    return declare


def periodic(name: str, cron: str) -> Callable[[Callable[[], None]], Any]:
    """Declare the job ``name``, enqueued by every worker's clock at most once a tick (six fields: with seconds)."""

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


def worker_app() -> App:
    """The app on a connection pool of its own; jobs still enqueue through Django's, within their transaction."""
    connector: DjangoConnector = app.connector  # type: ignore[assignment]  # which is what Django's app has
    return app.with_connector(connector.get_worker_connector())


async def rescue_stalled(worker: App, *, every_s: float, after_s: float) -> None:
    """Put jobs back whose worker gave no sign of life for ``after_s`` seconds; runs until it is cancelled."""
    while True:
        for stalled in await worker.job_manager.get_stalled_jobs(seconds_since_heartbeat=after_s):
            logger.warning("job_rescued", job=stalled.task_name, id=stalled.id)
            await worker.job_manager.retry_job(stalled)
        await asyncio.sleep(every_s)
