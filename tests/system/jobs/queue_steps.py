"""Jobs for the queue tests, and helpers that run workers or change the queue's tables."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from procrastinate.contrib.django.models import ProcrastinateJob

from byteor_cloud.worker import jobs
from byteor_cloud.worker.jobs import Claim, GivenUp, Job, JobLane, runs, runs_claimed
from byteor_cloud.worker.process import Worker
from tests.patience import PATIENCE_S

UNKNOWN = "test.unknown"
ran: list[Any] = []
gave_up: list[Any] = []
proceed = threading.Event()
fails_with: list[BaseException] = []
steps: list[Callable[[], object]] = []  # a function for each run of TakeSteps


class Note(Job, name="test.note", lane=JobLane.RELEASES):
    word: str


class Fail(Job, name="test.fail", lane=JobLane.RELEASES):
    pass


class TakeSteps(Job, name="test.take_steps", lane=JobLane.RELEASES):
    pass


class Block(Job, name="test.block", lane=JobLane.REPLAY):
    who: str


class BlockWebhookLane(Job, name="test.block_webhook_lane", lane=JobLane.WEBHOOKS):
    pass


class TakeTurns(Job, name="test.take_turns", lane=JobLane.INGEST):
    who: str


class Hold(Job, name="test.hold", lane=JobLane.RELEASES):
    pass


class FailWithTwin(Job, name="test.fail_with_twin", lane=JobLane.RELEASES):
    pass


def _note_given_up(why: GivenUp, job: Job) -> None:
    gave_up.append((why, vars(job)))


@runs(Note, gave_up=_note_given_up)
def note(job: Note) -> None:
    ran.append(job.word)


@runs(Fail, gave_up=_note_given_up)
def fail(job: Fail) -> None:
    ran.append("failed")
    if fails_with:
        raise fails_with[0]


@runs(TakeSteps)
def take_steps(job: TakeSteps) -> None:
    steps.pop(0)()


@runs(Block)
def block(job: Block) -> None:
    ran.append(job.who)
    proceed.wait(PATIENCE_S)


@runs(BlockWebhookLane)
def block_webhook_lane(job: BlockWebhookLane) -> None:
    ran.append("waits")
    proceed.wait(PATIENCE_S)


@runs(TakeTurns)
def take_turns(job: TakeTurns) -> None:
    ran.append(job.who)


@runs_claimed(Hold)
def hold(claim: Claim, job: Hold) -> None:
    ran.append(claim)
    proceed.wait(PATIENCE_S)
    with transaction.atomic():
        claim.confirm()
        ran.append("wrote")


@runs(FailWithTwin)
def fail_with_twin(job: FailWithTwin) -> None:
    ran.append("failed")
    if len(ran) == 1:
        enqueue(FailWithTwin(), once="key", serial="s")
        raise RuntimeError("no")


def enqueue(
    job: Job,
    organization: UUID | None = None,
    *,
    person: UUID | None = None,
    once: str | None = None,
    serial: str | None = None,
) -> None:
    jobs.enqueue(job, organization=organization, person=person, once=once, serial=serial)


def enqueue_unknown(organization: UUID, person: UUID, *, count: int = 1) -> None:
    """Enqueue jobs of a task that no function is registered for, as a process of a newer release would do."""
    execute(
        "INSERT INTO procrastinate_jobs (queue_name, byteor_person, task_name, args)"
        " SELECT %s, %s, %s, '{}' FROM generate_series(1, %s)",
        jobs.queue_of(JobLane.INGEST, organization), str(person), UNKNOWN, count,
    )  # fmt: skip


def work(**options: Any) -> None:
    """Run a worker until there is no due job that it can run."""
    Worker(has_clock=False, **options).run(until_idle=True)


class Running:
    """A worker that runs in a thread during the block. At the block's end, jobs waiting for ``proceed`` continue."""

    def __init__(self, **options: Any) -> None:
        self.worker = Worker(**{"has_clock": False, "grace_s": 5.0, **options})
        self.thread = threading.Thread(target=self.worker.run)

    def __enter__(self) -> Worker:
        self.thread.start()
        return self.worker

    def __exit__(self, *_: object) -> None:
        proceed.set()
        self.worker.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def waiting() -> list[tuple[str, str]]:
    return list(ProcrastinateJob.objects.order_by("id").values_list("task_name", "status"))


def execute(sql: str, *arguments: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        return cursor.fetchall() if cursor.description else []


def make_due() -> None:
    execute("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '1 hour' WHERE status = 'todo'")


def kill_worker() -> None:
    """Change every waiting job as if a worker process had been killed while running the job."""
    execute(
        "WITH dead AS (INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')"
        " RETURNING id) UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT id FROM dead),"
        " attempts = attempts + 1 WHERE status = 'todo'"
    )


def maintain_queue() -> None:
    """Delete dead workers and take over their jobs of known kinds, as every running worker does periodically."""
    Worker(has_clock=False)._maintain_queue()
