"""Workers that die, stall or stop: when another worker takes over their jobs, and what an old run of a job may do."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import OperationalError

from byteor_cloud.worker import claims, host, jobs
from byteor_cloud.worker.jobs import Claim
from byteor_cloud.worker.process import Worker
from tests.patience import PATIENCE_S, wait_until
from tests.system.jobs.queue_steps import (
    Block,
    Hold,
    Note,
    Running,
    enqueue,
    execute,
    kill_worker,
    maintain_queue,
    proceed,
    ran,
    waiting,
    work,
)  # fmt: skip


def test_job_of_worker_with_old_heartbeat_is_taken_over() -> None:
    enqueue(Note(word="orphan"), once="key", serial="s")
    kill_worker()
    enqueue(Note(word="twin"), once="key", serial="s")

    work()

    assert (ran, waiting()) == (["orphan", "twin"], [])


def test_starting_worker_does_not_take_over_jobs_of_live_worker() -> None:
    """The other worker has a recent heartbeat, but no database session."""
    enqueue(Note(word="running"))
    kill_worker()
    execute("UPDATE procrastinate_workers SET last_heartbeat = now()")

    work()

    assert (ran, waiting()) == ([], [("test.note", "doing")])


def test_worker_survives_loss_of_all_database_sessions() -> None:
    enqueue(Hold())
    with Running(heartbeat_s=0.1, stalled_after_s=30):
        wait_until(lambda: ran)
        for _ in range(3):
            execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            time.sleep(0.2)
            work()  # another worker, which must not take over the job
        assert waiting() == [("test.hold", "doing")]
        proceed.set()
        wait_until(lambda: waiting() == [])

    assert ran[1:] == ["wrote"]


def test_run_that_lost_its_job_cannot_record_result() -> None:
    enqueue(Hold())
    with Running(heartbeat_s=3600, stalled_after_s=3600):  # the worker does not renew its heartbeat
        wait_until(lambda: ran)
        execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '2 hours'")
        maintain_queue()
        ((kills,),) = execute("SELECT byteor_kills FROM procrastinate_jobs WHERE status = 'todo'")
        assert kills == 1
        execute("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 hour'")
        proceed.set()
        wait_until(lambda: ran[0].is_lost)

    assert "wrote" not in ran
    assert waiting() == [("test.hold", "todo")]


def test_claim_check_waits_while_claim_is_uncertain_and_raises_when_claim_is_lost() -> None:
    enqueue(Hold())
    outcomes: list[str] = []

    def ensure(claim: Claim) -> None:
        try:
            claim.ensure()
            outcomes.append("mine")
        except jobs.ClaimLost:
            outcomes.append("lost")

    with Running(heartbeat_s=3600, stalled_after_s=3600) as running:
        wait_until(lambda: ran)
        ensure(ran[0])
        running._sure_until = 0.0  # as if the worker's heartbeat were too old
        unsure = threading.Thread(target=ensure, args=ran)
        unsure.start()
        unsure.join(0.3)
        assert outcomes == ["mine"]
        execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '2 hours'")
        maintain_queue()
        running._renew()
        unsure.join(PATIENCE_S)

    assert outcomes == ["mine", "lost"]


def test_write_is_retried_only_after_outages_and_only_while_claim_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RETRY_S", 0.01)
    run = claims.FetchedJob((1, "release:x", "test.note", None, {}, 1, 0, 0, 0, ""), 1)
    claim = claims.HeldClaim(run, lambda: True)
    tries: list[int] = []

    def write() -> None:
        tries.append(1)
        if len(tries) < 5:
            raise OperationalError("gone")

    claim.retry_until_stored(write)
    assert len(tries) == 5
    with pytest.raises(ZeroDivisionError):
        claim.retry_until_stored(lambda: [][1 // 0])
    tries.clear()
    claim.lose()
    with pytest.raises(jobs.ClaimLost):
        claim.retry_until_stored(write)


def test_stopping_worker_requeues_job_that_outlasts_grace_period() -> None:
    enqueue(Block(who="blocked"))
    running = Worker(has_clock=False, grace_s=0.3)
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: ran)

    running.stop()
    thread.join(PATIENCE_S)

    assert not thread.is_alive()  # the worker has stopped, although the job still blocks
    assert execute("SELECT status, attempts, byteor_kills FROM procrastinate_jobs") == [("todo", 0, 0)]
    assert execute("SELECT count(*) FROM procrastinate_workers") == [(0,)]
    proceed.set()
    wait_until(lambda: not any(each.name.startswith("test.block") for each in threading.enumerate()))
    assert waiting() == [("test.block", "todo")]  # the old run could not change the job
    work()
    assert (ran, waiting()) == (["blocked"] * 2, [])


def test_stopping_worker_deletes_its_row_and_lock_file() -> None:
    work()

    assert execute("SELECT count(*) FROM procrastinate_workers") == [(0,)]
    assert [path for path in host.lock_folder().iterdir() if path.name.isdigit()] == []
