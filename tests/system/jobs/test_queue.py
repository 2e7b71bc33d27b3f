"""The queue with real workers: when jobs run, their order and concurrency, the cost of a fetch, PostgreSQL's limits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import connection, transaction

from byteor_cloud.database import connections
from byteor_cloud.ids import uuid7
from byteor_cloud.worker import jobs, process
from byteor_cloud.worker.jobs import KINDS, JobLane, Kind
from byteor_cloud.worker.statements import DUE_LANES, FETCH
from tests.patience import wait_until
from tests.system.jobs.queue_steps import (
    UNKNOWN,
    Block,
    BlockWebhookLane,
    Note,
    Running,
    TakeTurns,
    enqueue,
    enqueue_unknown,
    execute,
    kill_worker,
    maintain_queue,
    proceed,
    ran,
    waiting,
    work,
)  # fmt: skip

# -- the queue


def test_successful_job_is_deleted() -> None:
    enqueue(Note(word="a"))

    work()

    assert (ran, waiting()) == (["a"], [])


def test_rolled_back_transaction_enqueues_no_job() -> None:
    with transaction.atomic():
        enqueue(Note(word="a"))
        enqueue(Note(word="b"), once="key")
        transaction.set_rollback(True)

    assert waiting() == []


def test_job_is_not_enqueued_while_another_with_same_once_key_waits() -> None:
    for _ in range(3):
        enqueue(Note(word="a"), once="a")
    enqueue(Note(word="b"), once="b")

    assert len(waiting()) == 2
    work()
    assert sorted(ran) == ["a", "b"]
    enqueue(Note(word="a"), once="a")
    assert len(waiting()) == 1


def test_jobs_with_same_serial_key_run_in_order() -> None:
    for number in range(8):
        enqueue(Note(word=str(number)), serial="s")

    work()

    assert ran == [str(number) for number in range(8)]


def test_job_is_enqueued_if_waiting_job_with_same_once_key_starts_before_commit() -> None:
    enqueue(Note(word="early"), once="key")

    with transaction.atomic():
        enqueue(Note(word="late"), once="key")
        # The waiting job starts here and cannot see the change of this transaction.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert ran == ["early"]

    work()
    assert ran == ["early", "late"]


def test_running_worker_starts_new_job_without_waiting_for_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POLL_S", 3600)
    with Running():
        for number in range(20):
            enqueue(Note(word=str(number)))
            wait_until(lambda: len(ran) == number + 1)  # noqa: B023  wait_until calls it within the iteration


# -- lanes and turns


def test_full_lane_does_not_delay_other_lanes() -> None:
    slots = jobs.SLOTS[JobLane.WEBHOOKS]
    for _ in range(slots + 1):
        enqueue(BlockWebhookLane())

    with Running():
        wait_until(lambda: len(ran) == slots)
        enqueue(Note(word="a"))
        wait_until(lambda: "a" in ran)
        assert ran == ["waits"] * slots + ["a"]
        proceed.set()
        wait_until(lambda: ran.count("waits") == slots + 1)

    assert waiting() == []


# Only the installation has jobs in HOUSEKEEPING. REGRESSIONS has only one slot, and its jobs requeue themselves.
SHARED_LANES = [lane for lane in JobLane if lane not in {JobLane.HOUSEKEEPING, JobLane.REGRESSIONS}]


@pytest.mark.parametrize("lane", SHARED_LANES)
def test_one_organization_uses_at_most_half_of_slots_of_lane(lane: JobLane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "lane", lane)
    greedy, other = uuid7(), uuid7()
    for _ in range(8):
        enqueue(Block(who="greedy"), greedy)

    with Running():
        wait_until(lambda: len(ran) == jobs.SLOTS[lane] // 2)
        enqueue(Block(who="other"), other)
        wait_until(lambda: "other" in ran)
        assert ran.count("greedy") == jobs.SLOTS[lane] // 2


def test_organizations_take_turns_regardless_of_queue_length() -> None:
    """Each of fifty organizations waits about one round, although another one enqueued a thousand jobs first."""
    greedy, others = uuid7(), [uuid7() for _ in range(50)]
    with transaction.atomic():
        for _ in range(1000):
            enqueue(TakeTurns(who="greedy"), greedy)
        for number in [*range(50), *range(50)]:
            enqueue(TakeTurns(who=str(number)), others[number])

    with Running():
        wait_until(lambda: len({*ran}) == 51 and len(ran) > 160)

    rounds = [ran.index("greedy", 1)]
    for number in range(50):
        places = [place for place, who in enumerate(ran) if who == str(number)]
        assert len(places) == 2
        rounds += [places[0], places[1] - places[0]]
    # A round has 51 jobs. Concurrent slots may swap adjacent jobs.
    assert max(rounds) <= 51 + 2 * jobs.SLOTS[JobLane.INGEST]


@pytest.mark.parametrize("lane", SHARED_LANES)
def test_one_person_uses_at_most_half_of_slots_of_lane(lane: JobLane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "lane", lane)
    greedy, other = uuid7(), uuid7()
    for _ in range(8):
        enqueue(Block(who="greedy"), uuid7(), person=greedy)

    with Running():
        wait_until(lambda: len(ran) == jobs.SLOTS[lane] // 2)
        enqueue(Block(who="other"), uuid7(), person=other)
        wait_until(lambda: "other" in ran)
        assert ran.count("greedy") == jobs.SLOTS[lane] // 2


def test_person_at_limit_does_not_delay_colleagues() -> None:
    """The colleague's job waits in the same queue, behind the jobs of the person at the limit."""
    greedy, shared = uuid7(), uuid7()
    enqueue(Block(who="greedy"), uuid7(), person=greedy)
    with Running():
        wait_until(lambda: ran == ["greedy"])
        for _ in range(3):
            enqueue(Block(who="waits"), shared, person=greedy)
        enqueue(Block(who="colleague"), shared, person=uuid7())

        wait_until(lambda: len(ran) == 2)
        assert ran == ["greedy", "colleague"]


def test_people_take_turns_regardless_of_number_of_organizations() -> None:
    greedy = uuid7()
    with transaction.atomic():
        for number in range(100):
            enqueue(TakeTurns(who="greedy"), uuid7(), person=greedy)
            if number >= 90:
                enqueue(TakeTurns(who="other"), uuid7(), person=uuid7())

    work()

    # The jobs of other people are nearly all among the first twelve. Concurrent slots may swap adjacent jobs.
    assert ran[:12].count("other") >= 9
    assert len(ran) == 110


def test_job_without_person_from_previous_release_is_run() -> None:
    execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES (%s, 'test.note', '{\"word\": \"old\"}')",
        jobs.queue_of(JobLane.RELEASES, uuid7()),
    )

    work()

    assert (ran, waiting()) == (["old"], [])


def test_job_of_killed_worker_keeps_its_person() -> None:
    person = uuid7()
    enqueue(Note(word="a"), uuid7(), person=person)
    kill_worker()

    maintain_queue()

    assert execute("SELECT status, byteor_kills, byteor_person FROM procrastinate_jobs") == [("todo", 1, str(person))]


@pytest.mark.parametrize("statement", [DUE_LANES, FETCH], ids=["due", "fetch"])
@pytest.mark.parametrize("is_full", [False, True])
def test_fetch_cost_does_not_depend_on_queue_length(statement: str, is_full: bool) -> None:
    """The cost is the number of rows that PostgreSQL reads for the statement, not the time."""

    def rows(waiting_jobs: int) -> float:
        execute("TRUNCATE procrastinate_jobs CASCADE")
        organization, person = uuid7(), uuid7()
        with transaction.atomic():
            for _ in range(waiting_jobs):
                enqueue(TakeTurns(who="x"), organization, person=person)
            enqueue(TakeTurns(who="y"), organization, person=uuid7())
        return _rows_read(statement, full=[f"ingest:{person}"] if is_full else [])

    few, many = rows(200), rows(2000)
    assert many <= 2 * few


def _rows_read(statement: str, *, full: Sequence[str] = ()) -> float:
    execute("ANALYZE procrastinate_jobs")
    values: dict[str, Any] = {
        "lane": "ingest", "tasks": list(KINDS), "full": list(full), "names": [], "turns": [],
        "has_suspect": False, "suspect_waits": 60, "worker": None, "lanes": list(JobLane),
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, values)
        (plan,) = cursor.fetchone()
    return _actual_rows(plan[0]["Plan"])


def _actual_rows(node: dict[str, Any]) -> float:
    read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    return float(read * node["Actual Loops"]) + sum(_actual_rows(each) for each in node.get("Plans", []))


# -- jobs of a newer release


def test_job_of_unknown_task_waits_while_other_jobs_run() -> None:
    """During an upgrade, a newer release enqueues jobs that workers of the older one do not know."""
    organization, person = uuid7(), uuid7()
    enqueue_unknown(organization, person)
    enqueue(TakeTurns(who="same person"), organization, person=person)
    enqueue(TakeTurns(who="same organization"), organization)
    enqueue(TakeTurns(who="other organization"), uuid7())

    work()

    assert sorted(ran) == ["other organization", "same organization", "same person"]
    assert execute("SELECT task_name, status, attempts FROM procrastinate_jobs") == [(UNKNOWN, "todo", 0)]


def test_worker_that_knows_task_runs_waiting_job(monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue_unknown(uuid7(), uuid7())
    work()
    assert waiting() == [(UNKNOWN, "todo")]

    monkeypatch.setitem(KINDS, UNKNOWN, Kind(lambda _: ran.append("newer")))
    work()

    assert (ran, waiting()) == (["newer"], [])


def test_job_of_unknown_task_is_not_taken_over_from_dead_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue_unknown(uuid7(), uuid7())
    enqueue(Note(word="a"))
    execute("UPDATE procrastinate_jobs SET byteor_kills = %s WHERE task_name = %s", jobs.KILLS - 1, UNKNOWN)
    kill_worker()

    maintain_queue()
    assert waiting() == [(UNKNOWN, "doing"), ("test.note", "todo")]

    given_up: list[Any] = []
    monkeypatch.setitem(KINDS, UNKNOWN, Kind(lambda _: None, gave_up=given_up.append))
    maintain_queue()
    assert waiting() == [(UNKNOWN, "failed"), ("test.note", "todo")]
    assert len(given_up) == 1


@pytest.mark.parametrize("statement", [DUE_LANES, FETCH], ids=["due", "fetch"])
def test_fetch_cost_does_not_depend_on_number_of_jobs_of_unknown_task(statement: str) -> None:
    def rows(waiting_jobs: int) -> float:
        execute("TRUNCATE procrastinate_jobs CASCADE")
        organization, person = uuid7(), uuid7()
        enqueue_unknown(organization, person, count=waiting_jobs)
        enqueue(TakeTurns(who="x"), organization, person=person)
        return _rows_read(statement)

    assert rows(2000) <= 2 * rows(200)


def test_queue_names_fit_into_notification_channel_names() -> None:
    for lane in JobLane:
        owner = None if lane is JobLane.HOUSEKEEPING else uuid7()
        assert len(f"procrastinate_queue_v1#{jobs.queue_of(lane, owner)}") <= 63


def test_worker_has_connection_for_every_thread_and_small_installation_fits_into_max_connections() -> None:
    assert sum(jobs.SLOTS.values()) + 3 == connections.WORKER_THREADS
    assert connection.settings_dict["OPTIONS"]["pool"]["max_size"] == connections.WORKER_THREADS + 2
    # Two API processes and a worker must fit into the default max_connections of 100, of which 3 are reserved, and
    # leave some connections for people.
    assert connections.connections_needed(api_processes=2, threads=8, workers=1) <= 100 - 3 - 8
