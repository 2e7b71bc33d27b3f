"""Jobs that kill their worker process: their back-off, dead letters, and waits for other suspected killers."""

from __future__ import annotations

from inspect import signature

import pytest
from procrastinate.contrib.django.models import ProcrastinateJob

from byteor_cloud.ids import uuid7
from byteor_cloud.worker import dead_letters, jobs
from byteor_cloud.worker.jobs import KILLS, KINDS, Job
from tests.patience import wait_until
from tests.system.jobs.queue_steps import (
    Block,
    Note,
    Running,
    enqueue,
    execute,
    gave_up,
    kill_worker,
    maintain_queue,
    make_due,
    ran,
    waiting,
    work,
)  # fmt: skip

OURS = sorted(name for name in KINDS if not name.startswith("test."))


def die(times: int) -> None:
    for _ in range(times):
        make_due()
        kill_worker()
        maintain_queue()


def test_job_becomes_dead_letter_after_ten_kills_with_growing_back_off() -> None:
    enqueue(Note(word="poison"), serial="s", once="s")
    delays = []

    for kill in range(1, KILLS + 1):
        ((before,),) = execute("SELECT now()")
        die(1)
        ((status, attempts, kills, at),) = execute(
            "SELECT status::text, attempts, byteor_kills, scheduled_at FROM procrastinate_jobs"
        )
        assert (attempts, kills) == (kill, kill)
        if kill < KILLS:
            assert status == "todo"
            delays.append((at - before).total_seconds())

    assert status == "failed"
    assert KILLS == 10
    assert all(asked <= delay < asked + 2 for delay, asked in zip(delays, [0, 1, 2, 4, 8, 15, 15, 15, 15], strict=True))
    assert [(why.killed, arguments) for why, arguments in gave_up] == [(True, {"word": "poison"})]
    assert ran == []

    # While the dead letter exists, enqueueing the same job again does nothing.
    enqueue(Note(word="poison"), serial="s", once="s")
    assert waiting() == [("test.note", "failed")]
    assert dead_letters.find_obstacles(["s"])["s"].is_dead
    assert dead_letters.retry_dead_letter(ProcrastinateJob.objects.get().pk)
    work()
    assert (ran, waiting()) == (["poison"], [])


def test_waiting_duplicate_is_deleted_when_killer_becomes_dead_letter() -> None:
    enqueue(Note(word="poison"), serial="s", once="s")
    kill_worker()
    enqueue(Note(word="poison"), serial="s", once="s")
    execute("UPDATE procrastinate_jobs SET byteor_kills = 9 WHERE status = 'doing'")

    maintain_queue()

    assert waiting() == [("test.note", "failed")]


DECLARED = {job.name: job for job in Job.__subclasses__()}


@pytest.mark.parametrize("name", OURS)
def test_each_kind_of_job_can_become_dead_letter(name: str) -> None:
    periodic = KINDS[name].periodic
    if periodic is not None:
        jobs.enqueue_tick(periodic, 0)
    else:
        job = DECLARED[name]
        enqueue(job(**dict.fromkeys(signature(job).parameters, str(uuid7()))), uuid7())

    die(KILLS - 1)
    assert waiting() == [(name, "todo")]
    die(1)
    assert waiting() == [(name, "failed")]
    if periodic is not None:
        jobs.enqueue_tick(periodic, 10**9)
        assert waiting() == [(name, "failed")]


def test_postponed_job_does_not_block_other_jobs() -> None:
    enqueue(Note(word="poison"))
    die(3)
    execute("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '15 s'")
    enqueue(Note(word="other"))

    work()

    assert (ran, waiting()) == (["other"], [("test.note", "todo")])


def test_suspected_killer_waits_only_limited_time_for_another_suspect() -> None:
    """At first, a worker runs one suspect at a time, so that a job that only ran next to the killer can finish."""
    for who in ("one", "two"):
        enqueue(Block(who=who), uuid7())
    kill_worker()
    maintain_queue()

    with Running():
        wait_until(lambda: ran)
        enqueue(Note(word="other"))
        wait_until(lambda: "other" in ran)
        assert len(ran) == 2
        execute("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '2 minutes' WHERE status = 'todo'")
        wait_until(lambda: len(ran) == 3)  # no suspect waits forever for another that never finishes
