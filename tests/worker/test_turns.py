"""Tests of the turns of replays with a fake clock. ``tests/artifacts/test_turns.py`` runs real replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from byteor_cloud.worker.jobs import Claim, JobLane
from byteor_cloud.worker.turns import QUANTUM_S, SHORT_S, Turn, Turns


class Owned(Claim):
    """A claim that is charged to an organization and, if there is one, a person."""

    def __init__(self, *owners: str, lane: JobLane = JobLane.REPLAY) -> None:
        self.owners = owners
        self._lane = lane

    @property
    def lane(self) -> JobLane:
        return self._lane


class Queue:
    """A set of replays that take turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = Turns(lambda: self.now)
        self.joined: list[Turn] = []
        self._left = ExitStack()
        self._leave: dict[Turn, ExitStack] = {}

    def join(self, *owners: str, is_long: bool = False) -> Turn:
        stack = self._left.enter_context(ExitStack())
        lane = JobLane.LONG_REPLAYS if is_long else JobLane.REPLAY
        turn = stack.enter_context(self.turns.join(Owned(*owners, lane=lane)))
        self._leave[turn] = stack
        self.joined.append(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        self._leave.pop(turn).close()
        self.joined.remove(turn)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.turns.assign()

    def computing(self) -> list[Turn]:
        return [turn for turn in self.joined if turn.has_place.is_set()]

    def count_long_turns(self, quanta: int) -> Counter[tuple[str, ...]]:
        """Let this number of quanta pass. At the end of each, count the owners of the long replay that computes."""
        counted: Counter[tuple[str, ...]] = Counter()
        for _ in range(quanta):
            self.pass_time(QUANTUM_S)
            (turn,) = (each for each in self.computing() if each.is_long)
            counted[turn.claim.owners] += 1
        return counted

    def close(self) -> None:
        self._left.close()


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    yield made
    made.close()


def test_one_computing_place_is_reserved_for_short_replays(queue: Queue) -> None:
    first, second = queue.join("x", "ann", is_long=True), queue.join("y", "bob", is_long=True)
    assert queue.computing() == [first]
    assert (first.claim.is_paused, second.claim.is_paused) == (False, True)

    short = queue.join("z", "cleo")

    assert queue.computing() == [first, short]
    queue.pass_time(QUANTUM_S)
    assert queue.computing() == [second]  # the short replay has become long, and ``second`` has had no turn yet


def test_replay_becomes_long_by_computing_not_by_waiting(queue: Queue) -> None:
    busy = queue.join("x", "ann")
    queue.join("y", "bob", is_long=True)
    waits = queue.join("z", "cleo")
    queue.pass_time(SHORT_S - 1)
    assert (busy.clock(), waits.clock()) == (SHORT_S - 1, 0)
    queue.leave(busy)

    queue.pass_time(SHORT_S - 1)

    assert (waits.clock(), waits.is_long) == (SHORT_S - 1, False)
    queue.pass_time(1)
    assert waits.is_long


def test_two_short_replays_compute_concurrently_while_no_long_replay_waits(queue: Queue) -> None:
    shorts = [queue.join(name, name) for name in "xyz"]

    assert queue.computing() == shorts[:2]
    queue.leave(shorts[0])
    assert queue.computing() == shorts[1:]


def test_person_with_five_organizations_gets_no_additional_turns(queue: Queue) -> None:
    for number in range(5):
        queue.join(f"organization {number}", "ann", is_long=True)
    queue.join("other", "bob", is_long=True)

    turns = queue.count_long_turns(100)

    assert turns["other", "bob"] == 50
    assert [turns[f"organization {number}", "ann"] for number in range(5)] == [10] * 5


def test_organization_with_five_people_gets_no_additional_turns(queue: Queue) -> None:
    for number in range(5):
        queue.join("crowd", f"person {number}", is_long=True)
    queue.join("other", "bob", is_long=True)

    turns = queue.count_long_turns(100)

    assert turns["other", "bob"] == 50
    assert [turns["crowd", f"person {number}"] for number in range(5)] == [10] * 5


def test_replays_without_person_share_turns_by_organization(queue: Queue) -> None:
    for owner in ("x", "x", "y"):
        queue.join(owner, is_long=True)

    assert queue.count_long_turns(60) == {("x",): 30, ("y",): 30}


def test_new_or_returning_person_does_not_catch_up_on_missed_turns(queue: Queue) -> None:
    old = queue.join("x", "ann", is_long=True)
    queue.pass_time(1000 * QUANTUM_S)
    queue.join("y", "bob", is_long=True)

    assert min(queue.count_long_turns(20).values()) >= 9

    queue.leave(old)  # an owner that leaves and joins again does not catch up either
    queue.pass_time(1000 * QUANTUM_S)
    queue.join("x", "ann", is_long=True)
    assert min(queue.count_long_turns(20).values()) >= 9


def test_leaving_and_rejoining_queue_gains_no_turns(queue: Queue) -> None:
    steady = queue.join("y", "bob", is_long=True)
    again = queue.join("x", "ann", is_long=True)
    for _ in range(40):
        (turn,) = queue.computing()
        queue.pass_time(QUANTUM_S)
        if turn is again:
            queue.leave(again)
            again = queue.join("x", "ann", is_long=True)

    assert steady.clock() == 20 * QUANTUM_S


def test_replays_of_new_people_do_not_starve_waiting_replay(queue: Queue) -> None:
    patient = queue.join("x", "ann", is_long=True)
    for number in range(3):
        queue.join(f"first {number}", f"one {number}", is_long=True)
    for number in range(80):
        (turn,) = queue.computing()
        queue.pass_time(QUANTUM_S)
        if turn is not patient:  # the other replays finish after one turn, each followed by a new person's
            queue.leave(turn)
            queue.join(f"follower {number}", f"person {number}", is_long=True)

    assert patient.clock() >= 16 * QUANTUM_S


def test_claim_of_unrepeatable_replay_without_place_is_not_marked_as_paused(queue: Queue) -> None:
    turn = queue.join("x", "ann", is_long=True)
    turn.is_repeatable = False
    queue.join("y", "bob", is_long=True)

    queue.pass_time(QUANTUM_S)

    assert turn not in queue.computing()
    assert not turn.claim.is_paused
