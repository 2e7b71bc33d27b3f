"""The queue, with the real worker: lanes and turns, retries, outages, dead letters, and jobs of workers that died."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.db.utils import InterfaceError
from procrastinate.contrib.django.models import ProcrastinateJob

from byteor_cloud import database, jobs
from byteor_cloud.errors import Unavailable
from byteor_cloud.ids import uuid7
from byteor_cloud.jobs import KILLS, KINDS, Claim, GivenUp, Lane
from byteor_cloud.worker import claims, machine, process
from byteor_cloud.worker.process import Worker
from tests.races import at_once

__all__ = ["at_once"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("at_once")]

OURS = sorted(KINDS)  # before this module declares its own
ran: list[Any] = []
gave_up: list[Any] = []
go_on = threading.Event()
fails_with: list[BaseException] = []


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    for each in (ran, gave_up, fails_with):
        each.clear()
    go_on.clear()
    yield
    go_on.set()
    execute("TRUNCATE procrastinate_workers CASCADE")


def _note_given_up(why: GivenUp, **arguments: Any) -> None:
    gave_up.append((why, arguments))


@jobs.job("test.note", lane=Lane.RELEASES, gave_up=_note_given_up)
def note(word: str) -> None:
    ran.append(word)


@jobs.job("test.fail", lane=Lane.RELEASES, gave_up=_note_given_up)
def fail() -> None:
    ran.append("failed")
    if fails_with:
        raise fails_with[0]


@jobs.job("test.block", lane=Lane.REPLAY)
def block(who: str) -> None:
    ran.append(who)
    go_on.wait(60)


@jobs.job("test.wait_for_a_stranger", lane=Lane.WEBHOOKS)
def wait_for_a_stranger() -> None:
    ran.append("waits")
    go_on.wait(60)


@jobs.job("test.take_turns", lane=Lane.INGEST)
def take_turns(who: str) -> None:
    ran.append(who)


@jobs.claimed_job("test.hold", lane=Lane.RELEASES)
def hold(claim: Claim) -> None:
    ran.append(claim)
    go_on.wait(60)
    with transaction.atomic():
        claim.confirm()
        ran.append("wrote")


@jobs.job("test.fail_beside_a_twin", lane=Lane.RELEASES)
def fail_beside_a_twin() -> None:
    ran.append("failed")
    if len(ran) == 1:
        enqueue("test.fail_beside_a_twin", once="key", serial="s")
        raise RuntimeError("no")


def enqueue(name: str, organization: UUID | None = None, **options: Any) -> None:
    jobs.enqueue(name, organization=organization, **options)


def work(**options: Any) -> None:
    """Run a worker until nothing is due."""
    Worker(has_clock=False, **options).run(until_idle=True)


class Running:
    """A worker in a thread while the block runs."""

    def __init__(self, **options: Any) -> None:
        self.worker = Worker(**{"has_clock": False, "grace_s": 5.0, **options})
        self.thread = threading.Thread(target=self.worker.run)

    def __enter__(self) -> Worker:
        self.thread.start()
        return self.worker

    def __exit__(self, *_: object) -> None:
        go_on.set()
        self.worker.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.02)


def waiting() -> list[tuple[str, str]]:
    return list(ProcrastinateJob.objects.order_by("id").values_list("task_name", "status"))


def execute(sql: str, *arguments: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        return cursor.fetchall() if cursor.description else []


def make_due() -> None:
    execute("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '1 hour' WHERE status = 'todo'")


def kill_its_worker() -> None:
    """Leave every waiting job as a process that was killed in it leaves it."""
    execute(
        "WITH dead AS (INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')"
        " RETURNING id) UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT id FROM dead),"
        " attempts = attempts + 1 WHERE status = 'todo'"
    )


def tend() -> None:
    """What every living worker does now and then."""
    Worker(has_clock=False)._tend()


# -- the queue


def test_a_job_that_succeeds_is_gone() -> None:
    enqueue("test.note", word="a")

    work()

    assert (ran, waiting()) == (["a"], [])


def test_a_change_that_rolls_back_leaves_no_job() -> None:
    with transaction.atomic():
        enqueue("test.note", word="a")
        enqueue("test.note", word="b", once="key")
        transaction.set_rollback(True)

    assert waiting() == []


def test_of_one_key_one_waits() -> None:
    for _ in range(3):
        enqueue("test.note", word="a", once="a")
    enqueue("test.note", word="b", once="b")

    assert len(waiting()) == 2
    work()
    assert sorted(ran) == ["a", "b"]
    enqueue("test.note", word="a", once="a")
    assert len(waiting()) == 1


def test_of_one_series_one_runs_at_a_time_in_order() -> None:
    for number in range(8):
        enqueue("test.note", word=str(number), serial="s")

    work()

    assert ran == [str(number) for number in range(8)]


def test_what_was_announced_before_the_commit_is_announced_again_after_it() -> None:
    enqueue("test.note", word="early", once="key")

    with transaction.atomic():
        enqueue("test.note", word="late", once="key")
        # The job that waited starts now, and cannot see this transaction's change.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert ran == ["early"]

    work()
    assert ran == ["early", "late"]


def test_a_running_worker_hears_of_a_new_job_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POLL_S", 3600)
    with Running():
        for number in range(20):
            enqueue("test.note", word=str(number))
            wait_until(lambda: len(ran) == number + 1)  # noqa: B023  called within the iteration


# -- lanes and turns


def test_a_lane_that_is_full_holds_up_no_other() -> None:
    slots = jobs.SLOTS[Lane.WEBHOOKS]
    for _ in range(slots + 1):
        enqueue("test.wait_for_a_stranger")

    with Running():
        wait_until(lambda: len(ran) == slots)
        enqueue("test.note", word="a")
        wait_until(lambda: "a" in ran)
        assert ran == ["waits"] * slots + ["a"]
        go_on.set()
        wait_until(lambda: ran.count("waits") == slots + 1)

    assert waiting() == []


@pytest.mark.parametrize("lane", [lane for lane in Lane if lane is not Lane.HOUSEKEEPING])
def test_one_organization_never_has_all_slots_of_a_lane(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "test.block", jobs.Kind("test.block", lane, KINDS["test.block"].run))
    greedy, other = uuid7(), uuid7()
    for _ in range(8):
        enqueue("test.block", greedy, who="greedy")

    with Running():
        wait_until(lambda: len(ran) == jobs.SLOTS[lane] // 2)
        enqueue("test.block", other, who="other")
        wait_until(lambda: "other" in ran)
        assert ran.count("greedy") == jobs.SLOTS[lane] // 2


def test_organizations_take_turns_however_many_jobs_one_has_waiting() -> None:
    """Fifty of them, one with a thousand jobs in front: nobody waits for more than one round."""
    greedy, others = uuid7(), [uuid7() for _ in range(50)]
    with transaction.atomic():
        for _ in range(1000):
            enqueue("test.take_turns", greedy, who="greedy")
        for number in [*range(50), *range(50)]:
            enqueue("test.take_turns", others[number], who=str(number))

    with Running():
        wait_until(lambda: len({*ran}) == 51 and len(ran) > 160)

    rounds = [ran.index("greedy", 1)]
    for number in range(50):
        places = [place for place, who in enumerate(ran) if who == str(number)]
        assert len(places) == 2
        rounds += [places[0], places[1] - places[0]]
    # A round is 51 jobs; two slots may swap neighbours.
    assert max(rounds) <= 51 + 2 * jobs.SLOTS[Lane.INGEST]


def test_fetching_costs_no_more_with_a_long_queue() -> None:
    """Rows that PostgreSQL looks at for one fetch, not time."""

    def rows(waiting_jobs: int) -> float:
        execute("TRUNCATE procrastinate_jobs CASCADE")
        organization = uuid7()
        with transaction.atomic():
            for _ in range(waiting_jobs):
                enqueue("test.take_turns", organization, who="x")
        execute("ANALYZE procrastinate_jobs")
        values: dict[str, Any] = {
            "lane": "ingest", "full": [], "names": [], "turns": [], "has_suspect": False, "suspect_waits": 60,
            "worker": None,
        }  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + process.FETCH, values)
            (plan,) = cursor.fetchone()
        return _actual_rows(plan[0]["Plan"])

    few, many = rows(200), rows(2000)
    assert many <= 2 * few


def _actual_rows(node: dict[str, Any]) -> float:
    looked_at = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    return float(looked_at * node["Actual Loops"]) + sum(_actual_rows(each) for each in node.get("Plans", []))


def test_the_names_of_queues_fit_procrastinates_channels() -> None:
    for lane in Lane:
        owner = None if lane is Lane.HOUSEKEEPING else uuid7()
        assert len(f"procrastinate_queue_v1#{jobs.queue_of(lane, owner)}") <= 63


def test_a_worker_has_a_connection_for_every_thread() -> None:
    assert sum(jobs.SLOTS.values()) + 3 == database.WORKER_THREADS
    pool = connection.settings_dict["OPTIONS"]["pool"]
    # Two API processes and a worker beside each other, and some for people (contracts: max_connections = 100).
    assert 3 * pool["max_size"] <= 100 - 20


# -- a job that fails by itself


def test_retried_with_back_off_then_left_as_a_dead_letter() -> None:
    fails_with.append(RuntimeError("no\0"))
    enqueue("test.fail")
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


def test_before_its_time_nothing_is_retried() -> None:
    fails_with.append(RuntimeError("no"))
    enqueue("test.fail")

    work()
    work()

    assert ran == ["failed"]


def test_a_job_that_fails_beside_a_waiting_twin_goes_back_too() -> None:
    enqueue("test.fail_beside_a_twin", once="key", serial="s")

    work()

    assert (ran, waiting()) == (["failed"], [("test.fail_beside_a_twin", "todo")] * 2)
    make_due()
    work()
    assert (len(ran), waiting()) == (3, [])


def test_a_dead_letter_can_be_retried_with_all_its_attempts() -> None:
    fails_with.append(RuntimeError("no"))
    enqueue("test.fail")
    for _ in range(5):
        work()
        make_due()
    (job,) = ProcrastinateJob.objects.all()

    assert jobs.retry_dead_letter(job.pk)
    assert not jobs.retry_dead_letter(job.pk)
    work()
    assert waiting() == [("test.fail", "todo")]
    fails_with.clear()
    make_due()
    work()
    assert waiting() == []


def test_a_name_that_nobody_knows_is_a_dead_letter_in_the_end() -> None:
    enqueue("test.note", word="a")
    execute("UPDATE procrastinate_jobs SET task_name = 'test.gone'")
    for _ in range(5):
        work()
        make_due()

    assert waiting() == [("test.gone", "failed")]


# -- trouble of database or storage

TROUBLES = [
    OperationalError("the server closed the connection"),
    InterfaceError("connection already closed"),
    psycopg.errors.AdminShutdown("terminating connection"),
    psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
    Unavailable("The artifact store is not reachable."),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    PermissionError(errno.EACCES, "Permission denied"),
]
OWN = [
    RuntimeError("no"),
    FileNotFoundError(errno.ENOENT, "No such file"),
    OSError(errno.ENAMETOOLONG, "File name too long"),
    psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
    psycopg.errors.UniqueViolation("twice"),
    MemoryError(),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=repr)
def test_trouble_is_waited_for_however_long_it_takes(trouble: BaseException) -> None:
    fails_with.append(trouble)
    enqueue("test.fail", serial="s", once="s")
    delays = []

    for _ in range(20):
        ((before,),) = execute("SELECT now()")
        work()
        row = ProcrastinateJob.objects.get()
        assert (row.status, row.attempts) == ("todo", 0)
        delays.append((row.scheduled_at - before).total_seconds())
        make_due()
    assert sum(delays) > 600  # ten minutes and more
    assert max(delays) < 65
    assert not jobs.held_up(["s"])["s"].is_dead

    fails_with.clear()
    work()
    assert (waiting(), gave_up, len(ran)) == ([], [], 21)


@pytest.mark.parametrize("error", OWN, ids=repr)
def test_what_is_the_jobs_own_fault_counts(error: BaseException) -> None:
    assert not jobs.is_trouble(error)


def test_trouble_behind_another_error_is_trouble() -> None:
    error = RuntimeError("cannot read it")
    error.__cause__ = OSError(errno.EIO, "Input/output error")

    assert jobs.is_trouble(error)


# -- workers that die


def test_a_job_is_taken_over_when_its_workers_heartbeat_is_too_old() -> None:
    enqueue("test.note", word="orphan", once="key", serial="s")
    kill_its_worker()
    enqueue("test.note", word="twin", once="key", serial="s")

    work()

    assert (ran, waiting()) == (["orphan", "twin"], [])


def test_a_starting_worker_leaves_a_living_one_its_jobs() -> None:
    """Also one that has no database session any more: only its heartbeat counts."""
    enqueue("test.note", word="running")
    kill_its_worker()
    execute("UPDATE procrastinate_workers SET last_heartbeat = now()")

    work()

    assert (ran, waiting()) == ([], [("test.note", "doing")])


def test_a_worker_whose_sessions_are_all_ended_goes_on() -> None:
    enqueue("test.hold")
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
    enqueue("test.hold")
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
    enqueue("test.hold")
    told: list[str] = []

    def ask(claim: Claim) -> None:
        try:
            claim.ensure()
            told.append("mine")
        except jobs.Lost:
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
        unsure.join(30)

    assert told == ["mine", "lost"]


def test_a_result_is_insisted_on_through_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "AGAIN_S", 0.01)
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
    with pytest.raises(jobs.Lost):
        claim.insist(write)


def test_a_stop_gives_jobs_time_and_puts_back_those_that_take_longer() -> None:
    enqueue("test.block", who="blocked")
    running = Worker(has_clock=False, grace_s=0.3)
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: ran)

    running.stop()
    thread.join(30)

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
    assert [path for path in machine.folder().iterdir() if path.name.isdigit()] == []


# -- a job that kills its process


def die(times: int) -> None:
    for _ in range(times):
        make_due()
        kill_its_worker()
        tend()


def test_ten_kills_make_a_dead_letter_and_the_back_off_grows() -> None:
    enqueue("test.note", word="poison", serial="s", once="s")
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

    # It is not begun anew by whoever wants the same, until somebody retries it.
    enqueue("test.note", word="poison", serial="s", once="s")
    assert waiting() == [("test.note", "failed")]
    assert jobs.held_up(["s"])["s"].is_dead
    assert jobs.retry_dead_letter(ProcrastinateJob.objects.get().pk)
    work()
    assert (ran, waiting()) == (["poison"], [])


def test_what_waits_behind_a_killer_does_not_go_on_killing() -> None:
    enqueue("test.note", word="poison", serial="s", once="s")
    kill_its_worker()
    enqueue("test.note", word="poison", serial="s", once="s")
    execute("UPDATE procrastinate_jobs SET byteor_kills = 9 WHERE status = 'doing'")

    tend()

    assert waiting() == [("test.note", "failed")]


@pytest.mark.parametrize("name", OURS)
def test_each_kind_of_job_ends_as_a_dead_letter(name: str) -> None:
    kind, row_id = KINDS[name], str(uuid7())
    if kind.every_s is not None:
        jobs.enqueue_tick(kind, 0)
    else:
        code = kind.gave_up or kind.run
        arguments = {
            "releases.build": "deployment_id", "releases.step": "deployment_id",
            "releases.undo_break_glass": "deployment_id", "releases.welcome": "agent_id",
            "releases.agent_left": "agent_id", "artifacts.ingest": "artifact_id", "artifacts.replay": "replay_id",
            "artifacts.replay_decided": "approval_id", "tenancy.purge_project": "id",
            "tenancy.purge_environment": "id", "tenancy.deliver_webhooks": "webhook_id",
        }  # fmt: skip
        assert callable(code)
        enqueue(name, uuid7(), **{arguments[name]: row_id})

    die(KILLS - 1)
    assert waiting() == [(name, "todo")]
    die(1)
    assert waiting() == [(name, "failed")]
    if kind.every_s is not None:
        jobs.enqueue_tick(kind, 10**9)
        assert waiting() == [(name, "failed")]


def test_a_graceful_stop_is_no_kill_and_other_jobs_proceed_beside_a_killer() -> None:
    enqueue("test.note", word="poison")
    die(3)
    execute("UPDATE procrastinate_jobs SET scheduled_at = now() + interval '15 s'")
    enqueue("test.note", word="other")

    work()

    assert (ran, waiting()) == (["other"], [("test.note", "todo")])


def test_of_those_that_were_there_one_is_tried_at_a_time() -> None:
    """Else a job that only ran beside the killer would die with it ten times."""
    for who in ("one", "two"):
        enqueue("test.block", uuid7(), who=who)
    kill_its_worker()
    tend()

    with Running():
        wait_until(lambda: ran)
        enqueue("test.note", word="other")
        wait_until(lambda: "other" in ran)
        assert len(ran) == 2
        execute("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '2 minutes' WHERE status = 'todo'")
        wait_until(lambda: len(ran) == 3)  # but none waits for ever behind one that never ends


# -- what comes by itself


def test_what_comes_by_itself_comes_as_often_as_it_must() -> None:
    assert {kind.name: kind.every_s for kind in map(KINDS.__getitem__, OURS) if kind.every_s is not None} == {
        "releases.sweep": 5,
        "tenancy.note_keys": 5,
        "tenancy.seal_audit": 3,
        "tenancy.wake_webhooks": 5,
        "tenancy.close_minute": 60,
        "artifacts.retention": 3600,
        "fleet.forget_credentials": 3600,
        "releases.forget_particulars": 3600,
        "tenancy.forget_credentials": 3600,
        "tenancy.forget_deliveries": 3600,
        "tenancy.forget_jobs": 3600,
        "tenancy.forget_sign_ins": 3600,
        "tenancy.seal_rest": 3600,
    }


def test_a_tick_is_enqueued_once_however_many_workers_there_are() -> None:
    two = [Worker() for _ in range(2)]
    for each in two:
        each._enqueue_ticks(1_000_000_000)
    assert len(waiting()) == len({name for name, _ in waiting()}) == sum(k.every_s is not None for k in KINDS.values())

    execute("DELETE FROM procrastinate_jobs")
    for each in two:
        each._enqueue_ticks(1_000_000_001)
    assert waiting() == []
    for each in two:
        each._enqueue_ticks(1_000_000_003)
    assert "tenancy.seal_audit" in dict(waiting())
    assert "tenancy.close_minute" not in dict(waiting())


@pytest.fixture
def every_3_s(monkeypatch: pytest.MonkeyPatch) -> jobs.Kind:
    kind = jobs.Kind("test.fail", Lane.HOUSEKEEPING, KINDS["test.fail"].run, every_s=3)
    monkeypatch.setitem(KINDS, "test.fail", kind)
    return kind


@pytest.mark.parametrize("error", [RuntimeError("no"), OperationalError("gone")], ids=repr)
def test_a_periodic_job_that_fails_leaves_one_row_at_most(every_3_s: jobs.Kind, error: BaseException) -> None:
    fails_with.append(error)

    for tick in range(20):
        jobs.enqueue_tick(every_3_s, tick * 3)
        work()

    assert len(ran) == 20  # each tick is tried: none waits for another one's retry
    rows = [] if isinstance(error, OperationalError) else [("test.fail", "failed")]
    assert waiting() == rows
    ((defers, events),) = execute(
        "SELECT (SELECT count(*) FROM procrastinate_periodic_defers), (SELECT count(*) FROM procrastinate_events)"
    )
    assert (defers, events <= 4) == (1, True)

    fails_with.clear()
    jobs.enqueue_tick(every_3_s, 100)
    work()
    assert waiting() == []  # it has healed


# -- what is forgotten


def test_dead_letters_are_kept_for_90_days_and_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_DEAD_LETTERS", 3)
    greedy, other = uuid7(), uuid7()
    for number in range(5):
        enqueue("test.note", greedy, word=f"greedy {number}")
    for age in (89, 91):
        enqueue("test.note", other, word=f"{age} days")
    enqueue("test.note", other, word="waits for long")
    execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE args->>'word' <> 'waits for long'")
    execute(
        "UPDATE procrastinate_events e SET at = now() - make_interval(days => split_part(args->>'word', ' ', 1)::int)"
        " FROM procrastinate_jobs j WHERE j.id = e.job_id AND j.args->>'word' LIKE '%% days'"
    )
    execute(
        "INSERT INTO procrastinate_events (job_id, type, at) SELECT id, 'started', now() - interval '8 days'"
        " FROM procrastinate_jobs, generate_series(1, 100) WHERE args->>'word' = 'waits for long'"
    )

    KINDS["tenancy.forget_jobs"].run(Claim())

    left = list(ProcrastinateJob.objects.order_by("id").values_list("args", flat=True))
    assert [each["word"] for each in left] == ["greedy 2", "greedy 3", "greedy 4", "89 days", "waits for long"]
    assert execute("SELECT count(*) FROM procrastinate_events WHERE type = 'started'") == [(0,)]
