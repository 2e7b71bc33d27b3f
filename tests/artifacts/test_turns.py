"""Turns of replays of several organizations and people, with real workers, processes and signals.

The clock of the turns only advances when a test advances it, so the tests count turns instead of seconds.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import children, replay_runs, replays
from apps.tenancy.actors import Actor
from apps.tenancy.models import AuditEvent
from byteor_cloud.worker.jobs import SLOTS, Claim, JobLane
from byteor_cloud.worker.process import Worker
from byteor_cloud.worker.turns import QUANTUM_S, SHORT_S, Turn, Turns
from tests.artifacts.incidents import incident, ingested, journal
from tests.artifacts.test_cancel import FAR_TOO_MANY, MANY, capture, slow_capture
from tests.crash.conftest import lives
from tests.patience import PATIENCE_S, wait_until
from tests.races import Race
from tests.worlds import World, plan


class Watched(Turns):
    """Turns whose clock the test advances. ``joined`` contains the turn of each replay that takes turns."""

    def __init__(self) -> None:
        self.time = 0.0
        self.joined: list[Turn] = []
        super().__init__(lambda: self.time)

    @contextmanager
    def join(self, claim: Claim) -> Iterator[Turn]:
        with super().join(claim) as turn:
            self.joined.append(turn)
            try:
                yield turn
            finally:
                self.joined.remove(turn)

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        self.assign()

    def pass_until(self, done: Callable[[], object]) -> None:
        """Advance the clock until ``done()`` is true."""

        def advance() -> object:
            self.pass_time(SHORT_S)
            return done()

        wait_until(advance)

    def of(self, world: World) -> Turn:
        """Wait until the process of the organization's replay can be paused. Returns its turn."""

        def found() -> list[Turn]:
            mine = [each for each in list(self.joined) if world.organization.pk.hex in each.claim.owners]
            return [each for each in mine if each.pid is not None]

        wait_until(found)
        return found()[0]


class Rival(Claim):
    """The claim of another organization's long replay."""

    owners = ("rival",)

    @property
    def lane(self) -> JobLane:
        return JobLane.LONG_REPLAYS


@pytest.fixture
def turns(concurrently: Race, monkeypatch: pytest.MonkeyPatch) -> Watched:
    made = Watched()
    monkeypatch.setattr(replay_runs, "TURNS", made)
    return made


@contextmanager
def working(**options: Any) -> Iterator[Worker]:
    """Run a worker while the block runs. By default, it waits at most 0.1 s for running jobs when it stops."""
    worker = Worker(**{"has_clock": False, "grace_s": 0.1, **options})
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def is_stopped(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):  # the process has exited
        return False


def wait_until_stopped(pid: int | None) -> None:
    """Wait until the kernel has stopped the process."""
    wait_until(lambda: is_stopped(pid))


def request(world: World, artifact: Artifact, actor: Actor | None = None) -> Replay:
    return replays.request(artifact, environment=world.dev, actor=actor or world.operator.actor)


def status(row: Replay) -> str:
    row.refresh_from_db()
    return row.status


def endless(*worlds: World) -> list[Artifact]:
    """Ingest, for each organization, a capture whose replay outlasts any test. This also runs all queued jobs."""
    return [slow_capture(world, FAR_TOO_MANY) for world in worlds]


def queues() -> Counter[tuple[str, str]]:
    """Count the jobs by lane and status."""
    rows = ProcrastinateJob.objects.values_list("queue_name", "status")
    return Counter((name.partition(":")[0], state) for name, state in rows)


def become_long(turns: Watched, lane: JobLane, *, waiting: int = 0) -> None:
    """Advance the clock until a job runs in the lane and ``waiting`` jobs are queued in it."""

    def has_moved() -> bool:
        found = queues()
        if any(not each.is_long and each.has_place.is_set() for each in list(turns.joined)):
            turns.pass_time(SHORT_S)
        return found[lane, "doing"] > 0 and found[lane, "todo"] == waiting

    wait_until(has_moved)


def test_short_replay_finishes_while_two_long_replays_run(turns: Watched) -> None:
    ann, elsewhere, other = World("ann"), World("elsewhere"), World("other")
    one, two = endless(ann, elsewhere)
    short_capture = capture(other)
    long = [request(world, artifact, ann.operator.actor) for world, artifact in ((ann, one), (elsewhere, two))]

    with working():
        turns.pass_until(lambda: all(status(row) == "running" for row in long))
        short = request(other, short_capture)
        wait_until(lambda: status(short) == "succeeded")
        assert [status(row) for row in long] == ["running"] * 2


def test_person_with_five_organizations_gets_no_extra_turns(turns: Watched) -> None:
    ann, bob = World("ann"), World("bob")
    mine = [ann, *(World(f"ann-{number}") for number in range(4))]
    *captures, of_bob = endless(*mine, bob)
    for world, artifact in zip(mine, captures, strict=True):
        request(world, artifact, ann.operator.actor)

    with working():
        # The worker runs two of Ann's replays. Her other three have used up the time of a short replay and are queued.
        become_long(turns, JobLane.LONG_REPLAYS, waiting=3)
        assert queues() == {("longrun", "doing"): SLOTS[JobLane.LONG_REPLAYS] // 2, ("longrun", "todo"): 3}
        request(bob, of_bob)
        turns.of(bob)
        turns.pass_until(lambda: queues()["longrun", "doing"] == 3)
        counted: Counter[str] = Counter()
        for _ in range(40):
            turns.pass_time(QUANTUM_S)
            (placed,) = (each for each in turns.joined if each.has_place.is_set())
            for each in turns.joined:
                wait_until(lambda: is_stopped(each.pid) is (each is not placed))  # noqa: B023  wait_until calls it within the iteration
            counted[placed.claim.owners[1]] += 1

    assert abs(counted[str(ann.operator.user.pk)] - counted[str(bob.operator.user.pk)]) <= 1
    assert counted.total() == 40


def test_paused_replay_neither_times_out_nor_changes_its_result(
    turns: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("acme")
    artifact = slow_capture(world, MANY)
    run_in_child = partial(children.run_in_child, silence_s=60.0)

    def run_and_pause(*request: Any, on_tick: Callable[[children.Progress], bool], **options: Any) -> Any:
        def tick(progress: children.Progress) -> bool:
            if progress.done and turns.time == 0.0:
                turns.pass_time(SHORT_S)  # the replay becomes a long one and waits for the end of the rival's turn
            return on_tick(progress)

        return run_in_child(*request, on_tick=tick, **options)

    monkeypatch.setattr(children, "run_in_child", run_and_pause)
    with working(), turns.join(Rival()):
        row = request(world, artifact)
        wait_until(lambda: Replay.objects.get().progress_done)
        turn = turns.of(world)
        wait_until_stopped(turn.pid)
        assert turn.claim.is_paused
        done = Replay.objects.get().progress_done
        for _ in range(100):
            turns.time += 60.0  # unlike ``pass_time``, does not reassign the places
        wait_until(lambda: status(row) == "succeeded")
        assert done < MANY

    unpaused = request(world, artifact)
    replay_runs.run(str(unpaused.pk))
    unpaused.refresh_from_db()
    assert row.result == unpaused.result
    assert row.result["egress"]["quotes_out"]["records"] == MANY
    actions = AuditEvent.objects.filter(resource_id=str(row.pk)).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["replay.request", "replay.start", "replay.succeed"]
    assert queues()["replay", "doing"] == queues()["longrun", "doing"] == 0


def pause_behind_rival(turns: Watched, world: World, row: Replay) -> int:
    """Turn the running replay into a long one, so that it is paused while a rival computes. Returns its process id."""
    wait_until(lambda: status(row) == "running")
    turn = turns.of(world)
    turns.pass_time(SHORT_S)
    assert turn.pid is not None
    wait_until_stopped(turn.pid)
    return turn.pid


def test_paused_dry_run_can_be_canceled(turns: Watched) -> None:
    world = World("acme")
    (artifact,) = endless(world)
    row = request(world, artifact)
    with working(), turns.join(Rival()):
        pid = pause_behind_rival(turns, world, row)

        replays.cancel(row, actor=world.operator.actor)

        wait_until(lambda: not lives(pid))
        wait_until(lambda: not ProcrastinateJob.objects.exists())
    assert (status(row), row.error_code) == ("failed", "cancelled")


def test_dry_run_waiting_for_first_turn_is_queued_and_can_be_canceled(turns: Watched) -> None:
    world = World("acme")
    row = request(world, capture(world))
    with turns.join(Claim()), turns.join(Rival()), working():
        wait_until(lambda: len(turns.joined) == 3)
        assert status(row) == "queued"

        replays.cancel(row, actor=world.operator.actor)

        wait_until(lambda: not ProcrastinateJob.objects.exists())
    assert (status(row), row.started_at) == ("failed", None)


def test_stopping_worker_does_not_wait_for_paused_dry_run(turns: Watched) -> None:
    world = World("acme")
    (artifact,) = endless(world)
    row = request(world, artifact)
    with turns.join(Rival()):
        with working(grace_s=PATIENCE_S * 10):
            pid = pause_behind_rival(turns, world, row)

        assert not lives(pid)
    assert status(row) == "running"
    assert ProcrastinateJob.objects.values_list("status", "attempts").get() == ("todo", 0)


def test_short_replay_runs_while_long_replay_slots_are_full(turns: Watched) -> None:
    """A dry run that becomes long while no long slot is free is requeued, and later repeated from the start."""
    worlds = [World("ann"), World("bob")]
    slots = {JobLane.REPLAY: 2, JobLane.LONG_REPLAYS: 1}
    (endless_capture,) = endless(worlds[0])
    artifact = slow_capture(worlds[1], MANY)
    other = World("cleo")
    short_capture = capture(other)
    first = request(worlds[0], endless_capture)

    with working(slots=slots):
        become_long(turns, JobLane.LONG_REPLAYS)
        second = request(worlds[1], artifact)
        become_long(turns, JobLane.LONG_REPLAYS, waiting=1)
        short = request(other, short_capture)
        wait_until(lambda: status(short) == "succeeded")
        assert (status(first), status(second), second.progress_done) == ("running", "running", 0)

        replays.cancel(first, actor=worlds[0].operator.actor)
        wait_until(lambda: status(second) == "succeeded")

    assert second.result["egress"]["quotes_out"]["records"] == MANY
    assert not ProcrastinateJob.objects.exists()


def test_paused_execute_replay_performs_each_side_effect_once(turns: Watched, receiver: Any) -> None:
    world = World("acme")
    world.dev.settings["replay_policy"] = "allowed"
    world.dev.save()
    stages = [{"id": "post", "op": f"http_post:{receiver.origin}/hook"}]
    version = world.version(content=plan(stages=stages))
    lines = [b'{"id":%d}' % number for number in range(200)]
    artifact = ingested(world, incident(version.spec_kv, quotes_in=journal(lines)))
    with working(), turns.join(Rival()):
        row = replays.request(artifact, environment=world.dev, mode="execute", actor=world.operator.actor)
        wait_until(lambda: receiver.requests)
        turn = turns.of(world)
        turns.pass_time(SHORT_S)
        assert not turn.claim.is_paused  # otherwise, a stopping worker would not wait for the execute replay
        turns.pass_time(QUANTUM_S)
        wait_until(lambda: status(row) == "succeeded")

    assert [body for _, _, body in receiver.requests] == lines
