"""Workers that die, stall or stop while they run a job: who takes it over, and what the old run may still write."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import OperationalError

from byteor_cloud import jobs
from byteor_cloud.jobs import Claim
from byteor_cloud.worker import claims, host
from byteor_cloud.worker.process import Worker
from tests.patience import PATIENCE_S, wait_until
from tests.system.jobs.queue_steps import (
    Block,
    Hold,
    Note,
    Running,
    enqueue,
    execute,
    go_on,
    kill_its_worker,
    ran,
    tend,
    waiting,
    work,
)  # fmt: skip


def test_a_job_is_taken_over_when_its_workers_heartbeat_is_too_old() -> None:
    enqueue(Note(word="orphan"), once="key", serial="s")
    kill_its_worker()
    enqueue(Note(word="twin"), once="key", serial="s")

    work()

    assert (ran, waiting()) == (["orphan", "twin"], [])


def test_a_starting_worker_leaves_a_living_one_its_jobs() -> None:
    """Also one that has no database session any more: only its heartbeat counts."""
    enqueue(Note(word="running"))
    kill_its_worker()
    execute("UPDATE procrastinate_workers SET last_heartbeat = now()")

    work()

    assert (ran, waiting()) == ([], [("test.note", "doing")])


def test_a_worker_whose_sessions_are_all_ended_goes_on() -> None:
    enqueue(Hold())
    with Running(heartbeat_s=0.1, stalled_after_s=30):
        wait_until(lambda: ran)
        for _ in range(3):
            execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            time.sleep(0.2)
            work()  # another worker, which takes nothing over
        assert waiting() == [("test.hold", "doing")]
        go_on.set()
        wait_until(lambda: waiting() == [])

    assert ran[1:] == ["wrote"]


def test_one_that_was_taken_over_cannot_write_its_end() -> None:
    enqueue(Hold())
    with Running(heartbeat_s=3600, stalled_after_s=3600):  # it cannot renew its heartbeat
        wait_until(lambda: ran)
        execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '2 hours'")
        tend()
        ((kills,),) = execute("SELECT byteor_kills FROM procrastinate_jobs WHERE status = 'todo'")
        assert kills == 1
        execute("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 hour'")
        go_on.set()
        wait_until(lambda: ran[0].is_lost)

    assert "wrote" not in ran
    assert waiting() == [("test.hold", "todo")]


def test_who_cannot_know_waits_and_who_lost_it_is_told() -> None:
    enqueue(Hold())
    told: list[str] = []

    def ask(claim: Claim) -> None:
        try:
            claim.ensure()
            told.append("mine")
        except jobs.ClaimLost:
            told.append("lost")

    with Running(heartbeat_s=3600, stalled_after_s=3600) as running:
        wait_until(lambda: ran)
        ask(ran[0])
        running._sure_until = 0.0  # its heartbeat is too old to rely on
        unsure = threading.Thread(target=ask, args=ran)
        unsure.start()
        unsure.join(0.3)
        assert told == ["mine"]
        execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '2 hours'")
        tend()
        running._renew()
        unsure.join(PATIENCE_S)

    assert told == ["mine", "lost"]


def test_a_result_is_insisted_on_through_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RETRY_S", 0.01)
    run = claims.Run((1, "release:x", "test.note", None, {}, 1, 0, 0, 0), 1)
    claim = claims.HeldClaim(run, lambda: True)
    tries: list[int] = []

    def write() -> None:
        tries.append(1)
        if len(tries) < 5:
            raise OperationalError("gone")

    claim.insist(write)
    assert len(tries) == 5
    with pytest.raises(ZeroDivisionError):
        claim.insist(lambda: [][1 // 0])
    tries.clear()
    claim.lose()
    with pytest.raises(jobs.ClaimLost):
        claim.insist(write)


def test_a_stop_gives_jobs_time_and_puts_back_those_that_take_longer() -> None:
    enqueue(Block(who="blocked"))
    running = Worker(has_clock=False, grace_s=0.3)
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: ran)

    running.stop()
    thread.join(PATIENCE_S)

    assert not thread.is_alive()  # though the job still blocks
    assert execute("SELECT status, attempts, byteor_kills FROM procrastinate_jobs") == [("todo", 0, 0)]
    assert execute("SELECT count(*) FROM procrastinate_workers") == [(0,)]
    go_on.set()
    wait_until(lambda: not any(each.name.startswith("test.block") for each in threading.enumerate()))
    assert waiting() == [("test.block", "todo")]  # the old run ended nothing
    work()
    assert (ran, waiting()) == (["blocked"] * 2, [])


def test_a_worker_that_ends_takes_its_row_and_its_file_along() -> None:
    work()

    assert execute("SELECT count(*) FROM procrastinate_workers") == [(0,)]
    assert [path for path in host.lock_folder().iterdir() if path.name.isdigit()] == []
