"""Jobs that fail: retries, outages of the database or storage, and dead letters and their deletion."""

from __future__ import annotations

import errno
import sys
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from django.db import OperationalError
from django.db.utils import InterfaceError
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.services import children
from apps.tenancy.jobs import DELETE_OLD_JOBS
from byteor_cloud.errors import NotStored, Unavailable
from byteor_cloud.ids import uuid7
from byteor_cloud.worker import dead_letters, jobs
from byteor_cloud.worker.jobs import KINDS, Claim, GivenUp, JobLane
from tests.system.jobs.queue_steps import (
    Fail,
    FailWithTwin,
    Note,
    TakeSteps,
    enqueue,
    execute,
    fails_with,
    gave_up,
    make_due,
    ran,
    steps,
    waiting,
    work,
)  # fmt: skip

# -- jobs that raise errors


def test_failing_job_is_retried_with_back_off_and_becomes_dead_letter() -> None:
    fails_with.append(RuntimeError("no\0"))
    enqueue(Fail())
    delays = []

    for _ in range(jobs.ATTEMPTS + 1):
        ((before,),) = execute("SELECT now()")
        work()
        row = ProcrastinateJob.objects.get()
        if row.status == "todo":
            delays.append(round((row.scheduled_at - before) / timedelta(seconds=1)))
            make_due()

    assert ran == ["failed"] * 5
    assert jobs.ATTEMPTS == 5
    assert all(asked <= delay <= asked + 2 for delay, asked in zip(delays, [3, 9, 27, 81], strict=True))
    assert waiting() == [("test.fail", "failed")]
    assert ProcrastinateJob.objects.get().attempts == 5
    assert gave_up == [(GivenUp(killed=False, error="RuntimeError: no?"), {})]


def test_failed_job_is_not_retried_before_its_back_off_ends() -> None:
    fails_with.append(RuntimeError("no"))
    enqueue(Fail())

    work()
    work()

    assert ran == ["failed"]


def test_failed_job_is_requeued_while_job_with_same_once_key_waits() -> None:
    enqueue(FailWithTwin(), once="key", serial="s")

    work()

    assert (ran, waiting()) == (["failed"], [("test.fail_with_twin", "todo")] * 2)
    make_due()
    work()
    assert (len(ran), waiting()) == (3, [])


def test_retried_dead_letter_that_fails_again_is_requeued() -> None:
    fails_with.append(RuntimeError("no"))
    enqueue(Fail())
    for _ in range(5):
        work()
        make_due()
    (job,) = ProcrastinateJob.objects.all()

    assert dead_letters.retry_dead_letter(job.pk)
    # The age of the oldest job counts from the retry, not from the time at which the job was enqueued.
    assert ProcrastinateJob.objects.get(pk=job.pk).scheduled_at is not None
    assert not dead_letters.retry_dead_letter(job.pk)
    work()
    assert waiting() == [("test.fail", "todo")]
    fails_with.clear()
    make_due()
    work()
    assert waiting() == []


# -- outages of the database or storage


OUTAGES = [
    OperationalError("the server closed the connection"),
    InterfaceError("connection already closed"),
    psycopg.errors.AdminShutdown("terminating connection"),
    psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
    Unavailable("The blob store is not available."),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file"),
]
JOB_ERRORS = [
    RuntimeError("no"),
    NotStored("The content is no longer stored."),
    OSError(errno.ENAMETOOLONG, "File name too long"),
    OSError(errno.EILSEQ, "Invalid or incomplete multibyte or wide character"),
    OSError(errno.ENOTEMPTY, "Directory not empty"),
    OSError(errno.EFBIG, "File too large"),
    psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
    psycopg.errors.UniqueViolation("twice"),
    MemoryError(),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=repr)
def test_job_is_retried_until_outage_ends(outage: BaseException) -> None:
    fails_with.append(outage)
    enqueue(Fail(), serial="s", once="s")
    delays = []

    for _ in range(20):
        ((before,),) = execute("SELECT now()")
        work()
        row = ProcrastinateJob.objects.get()
        assert (row.status, row.attempts) == ("todo", 0)
        delays.append((row.scheduled_at - before).total_seconds())
        make_due()
    assert sum(delays) > 600  # longer than ten minutes
    assert max(delays) < 65
    assert not dead_letters.find_obstacles(["s"])["s"].is_dead

    fails_with.clear()
    work()
    assert (waiting(), gave_up, len(ran)) == ([], [], 21)


def test_job_that_continues_after_outage_has_no_obstacle() -> None:
    found = []

    def fail_with(error: BaseException) -> None:
        raise error

    steps[:] = [
        lambda: fail_with(OUTAGES[0]),
        lambda: fail_with(jobs.Requeued(JobLane.RELEASES)),
        lambda: found.append(dead_letters.find_obstacles(["s"])),
    ]
    enqueue(TakeSteps(), serial="s")
    work()
    assert "s" in dead_letters.find_obstacles(["s"])
    make_due()

    work()

    assert (found, steps, waiting()) == ([{}], [], [])


@pytest.mark.parametrize("error", JOB_ERRORS, ids=repr)
def test_job_error_is_not_treated_as_outage(error: BaseException) -> None:
    assert not jobs.is_outage(error)


def test_error_caused_by_outage_is_treated_as_outage() -> None:
    error = RuntimeError("cannot read it")
    error.__cause__ = OSError(errno.EIO, "Input/output error")

    assert jobs.is_outage(error)


def test_early_exit_of_child_process_is_not_treated_as_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(children.ChildDied) as caught:
        children.run_in_child({"kind": "replay", "load": "x" * (1 << 20)}, scratch=tmp_path)

    assert not jobs.is_outage(caught.value)


# -- deletion of old rows


def test_old_and_excess_dead_letters_and_old_started_events_are_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dead_letters, "MAX_DEAD_LETTERS", 3)
    greedy, other = uuid7(), uuid7()
    for number in range(5):
        enqueue(Note(word=f"greedy {number}"), greedy)
    for age in (89, 91):
        enqueue(Note(word=f"{age} days"), other)
    enqueue(Note(word="waits for long"), other)
    execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE args->>'word' <> 'waits for long'")
    execute(
        "UPDATE procrastinate_events e SET at = now() - make_interval(days => split_part(args->>'word', ' ', 1)::int)"
        " FROM procrastinate_jobs j WHERE j.id = e.job_id AND j.args->>'word' LIKE '%% days'"
    )
    execute(
        "INSERT INTO procrastinate_events (job_id, type, at) SELECT id, 'started', now() - interval '8 days'"
        " FROM procrastinate_jobs, generate_series(1, 100) WHERE args->>'word' = 'waits for long'"
    )

    KINDS[DELETE_OLD_JOBS.name].run(Claim())

    left = list(ProcrastinateJob.objects.order_by("id").values_list("args", flat=True))
    assert [each["word"] for each in left] == ["greedy 2", "greedy 3", "greedy 4", "89 days", "waits for long"]
    assert execute("SELECT count(*) FROM procrastinate_events WHERE type = 'started'") == [(0,)]
