"""The queue, with the real worker: retries, dead letters, coalescing, and orphans of workers that died."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, transaction
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.periodic import PeriodicRegistry

from byteor_cloud import jobs
from tests.races import at_once

__all__ = ["at_once"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("at_once")]

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    ran.clear()
    yield
    ran.clear()


def _in_a_worker(function: Callable[..., None]) -> Callable[..., None]:
    """A job's function that gives its thread's database connection back."""

    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        finally:
            connection.close()

    return run


@jobs.job("test.note")
@_in_a_worker
def note(word: str) -> None:
    ran.append(word)


@jobs.final_job("test.fail")
@_in_a_worker
def fail(*, last: bool) -> None:
    ran.append(last)
    raise RuntimeError("no")


came = threading.Event()


@jobs.job("test.wait_for_a_stranger", queue=jobs.OUTBOUND_QUEUE)
@_in_a_worker
def wait_for_a_stranger() -> None:
    ran.append("waits")
    came.wait(30)


@jobs.job("test.fail_beside_a_twin")
@_in_a_worker
def fail_beside_a_twin() -> None:
    ran.append("failed")
    if len(ran) == 1:
        jobs.enqueue("test.fail_beside_a_twin", once="key", serial="s")
        raise RuntimeError("no")


def work(*, orphans: bool = False) -> None:
    """Run a worker until nothing is due."""

    async def run() -> None:
        app = jobs.worker_app()
        app.periodic_registry = PeriodicRegistry()  # type: ignore[no-untyped-call]  # no clock here
        async with app.open_async():
            options: dict[str, Any] = {
                "wait": False, "install_signal_handlers": False, "listen_notify": False, "delete_jobs": "successful",
            }  # fmt: skip
            if orphans:
                async with jobs.tended(app, every_s=60, after_s=60):
                    await app.run_worker_async(**options)
            else:
                await app.run_worker_async(**options)

    asyncio.run(run())


def waiting() -> list[tuple[str, str]]:
    return list(ProcrastinateJob.objects.order_by("id").values_list("task_name", "status"))


def execute(sql: str, *arguments: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)


def test_a_job_that_succeeds_is_gone() -> None:
    jobs.enqueue("test.note", word="a")

    work()

    assert (ran, waiting()) == (["a"], [])


def test_retried_with_back_off_then_left_as_a_dead_letter() -> None:
    jobs.enqueue("test.fail")
    delays = []

    for _ in range(jobs.ATTEMPTS + 1):
        with connection.cursor() as cursor:
            cursor.execute("SELECT now()")
            (before,) = cursor.fetchone()
        work()
        row = ProcrastinateJob.objects.get()
        if row.status == "todo":
            delays.append(round((row.scheduled_at - before) / timedelta(seconds=1)))
            execute("UPDATE procrastinate_jobs SET scheduled_at = now()")

    assert ran == [False] * (jobs.ATTEMPTS - 1) + [True]
    assert jobs.ATTEMPTS == 5
    assert delays == [3, 9, 27, 81]
    assert waiting() == [("test.fail", "failed")]


def test_before_its_time_nothing_is_retried() -> None:
    jobs.enqueue("test.fail")

    work()
    work()

    assert ran == [False]


def test_a_change_that_rolls_back_leaves_no_job() -> None:
    with transaction.atomic():
        jobs.enqueue("test.note", word="a")
        jobs.enqueue("test.note", word="b", once="key")
        transaction.set_rollback(True)

    assert waiting() == []


def test_of_one_key_one_waits() -> None:
    for _ in range(3):
        jobs.enqueue("test.note", word="a", once="a")
    jobs.enqueue("test.note", word="b", once="b")

    assert len(waiting()) == 2
    work()
    assert ran == ["a", "b"]
    jobs.enqueue("test.note", word="a", once="a")
    assert len(waiting()) == 1


def test_what_was_announced_before_the_commit_is_announced_again_after_it() -> None:
    jobs.enqueue("test.note", word="early", once="key")

    with transaction.atomic():
        jobs.enqueue("test.note", word="late", once="key")
        # The job that waited starts now, and cannot see this transaction's change.
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        assert ran == ["early"]

    work()
    assert ran == ["early", "late"]


def test_a_job_that_fails_beside_a_waiting_twin_goes_back_too() -> None:
    jobs.enqueue("test.fail_beside_a_twin", once="key", serial="s")

    work()

    assert (ran, waiting()) == (["failed"], [("test.fail_beside_a_twin", "todo")] * 2)
    execute("UPDATE procrastinate_jobs SET scheduled_at = now()")
    work()
    assert (len(ran), waiting()) == (3, [])


def orphan(**options: Any) -> None:
    """A job that a worker was at when it was killed, a moment ago."""
    jobs.enqueue("test.note", word="orphan", **options)
    execute(
        "WITH dead AS (INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id)"
        " UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT id FROM dead)"
    )


def test_a_worker_that_starts_alone_takes_over_at_once() -> None:
    orphan(once="key", serial="s")
    jobs.enqueue("test.note", word="twin", once="key", serial="s")

    work(orphans=True)

    assert (ran, waiting()) == (["orphan", "twin"], [])


def test_beside_a_living_worker_it_waits_for_signs_of_life() -> None:
    orphan()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [jobs._ALIVE])
        try:
            work(orphans=True)
            assert (ran, waiting()) == ([], [("test.note", "doing")])
        finally:
            cursor.execute("SELECT pg_advisory_unlock_shared(%s)", [jobs._ALIVE])

    execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'")

    async def rescue() -> None:
        app = jobs.worker_app()
        async with app.open_async():
            await jobs._rescue(app, after_s=10)

    asyncio.run(rescue())
    work()
    assert ran == ["orphan"]


def test_a_worker_that_ended_is_missed_by_the_next() -> None:
    work(orphans=True)
    orphan()

    work(orphans=True)

    assert ran == ["orphan"]


def test_jobs_that_wait_for_strangers_hold_up_no_others() -> None:
    for _ in range(jobs.SLOTS[jobs.OUTBOUND_QUEUE] + 1):
        jobs.enqueue("test.wait_for_a_stranger")

    async def run() -> None:
        app = jobs.worker_app()
        app.periodic_registry = PeriodicRegistry()  # type: ignore[no-untyped-call]  # no clock here
        async with app.open_async():
            worker = asyncio.create_task(
                jobs.run_queues(
                    app, install_signal_handlers=False, listen_notify=False, delete_jobs="successful",
                    fetch_job_polling_interval=0.05,
                )
            )  # fmt: skip
            while len(ran) < jobs.SLOTS[jobs.OUTBOUND_QUEUE]:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(_in_a_worker(jobs.enqueue), "test.note", word="a")
            while "a" not in ran:
                await asyncio.sleep(0.02)
            came.set()
            while not worker.done() and ran.count("waits") <= jobs.SLOTS[jobs.OUTBOUND_QUEUE]:
                await asyncio.sleep(0.02)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    try:
        asyncio.run(asyncio.wait_for(run(), 30))
    finally:
        came.set()

    assert ran == ["waits"] * 8 + ["a", "waits"]
    assert waiting() == []


def test_what_comes_by_itself_comes_as_often_as_it_must() -> None:
    """A sixth field of a cron is seconds, and it is the last: in front it would mean bursts, and long silences."""
    noon = 1_795_521_600.0  # 2026-11-24 12:00 UTC
    longest = {}
    for task in app.periodic_registry.periodic_tasks.values():
        ticks = task.croniter
        ticks.set_current(noon)
        times = [noon, *(ticks.get_next(float) for _ in range(100))]
        longest[task.task.name] = max(after - before for before, after in pairwise(times))

    assert longest == {
        "releases.sweep": 5,
        "tenancy.note_keys": 5,
        "tenancy.seal_audit": 3,
        "tenancy.wake_webhooks": 5,
        "tenancy.close_minute": 60,
        "artifacts.retention": 3600,
        "tenancy.forget_deliveries": 3600,
        "tenancy.forget_sign_ins": 3600,
        "tenancy.seal_rest": 3600,
    }
