"""Tests of turns in the event loop: who computes next, and who does not have to wait for a turn."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from byteor_cloud.concurrency import event_loop
from byteor_cloud.concurrency.event_loop import STEP_S, Pausing, Turns, computing_for, pause, resume, set_owner


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def compute(self, seconds: float = 0.002) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Use a fake clock, and act like a process whose event loop serves requests."""
    clock = Clock()
    monkeypatch.setattr(event_loop, "time", clock)
    monkeypatch.setattr(event_loop, "is_module_patched", lambda _: True)
    monkeypatch.setattr(event_loop, "_steps", event_loop._Steps())
    return clock


def in_turn(clock: Clock, turns: Turns, *owners: str) -> list[str]:
    """Start a greenlet for each owner. Return the owners with their indexes (``b4``), in the order of their turns."""
    order: list[str] = []

    def work(number: int, owner: str) -> None:
        turns.wait(owner)
        order.append(f"{owner}{number}")
        clock.compute()

    gevent.joinall([gevent.spawn(work, number, owner) for number, owner in enumerate(owners)], raise_error=True)
    return order


def test_owner_with_least_used_computing_time_goes_first(clock: Clock) -> None:
    assert in_turn(clock, Turns(), "a", "a", "a", "a", "b") == ["a0", "b4", "a1", "a2", "a3"]


def test_recently_used_computing_time_lowers_priority_of_owner(clock: Clock) -> None:
    turns = Turns()
    in_turn(clock, turns, "a", "a", "a")

    assert in_turn(clock, turns, "a", "a", "b", "b", "c") == ["b2", "c4", "b3", "a0", "a1"]


def test_computing_time_used_long_ago_does_not_lower_priority(clock: Clock) -> None:
    turns = Turns()
    in_turn(clock, turns, "a", "a", "a")
    for _ in range(20):
        clock.now += 1
        in_turn(clock, turns, "c")

    assert in_turn(clock, turns, "a", "b", "a")[0] == "a0"


def test_other_greenlets_run_between_turns(clock: Clock) -> None:
    order: list[str] = []

    def work() -> None:
        turns.wait("a")
        order.append("turn")
        clock.compute()

    def beat() -> None:
        for _ in range(50):
            order.append("beat")
            gevent.sleep(1e-6)  # until the next iteration of the event loop, like a wait for the database

    turns = Turns()
    gevent.joinall([gevent.spawn(work) for _ in range(4)] + [gevent.spawn(beat)], raise_error=True)

    turns_at = [at for at, name in enumerate(order) if name == "turn"]
    assert all("beat" in order[one:other] for one, other in pairwise(turns_at))


def test_pause_after_turn_is_rest_factor_times_computing_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        gevent.sleep(0)

    monkeypatch.setattr(event_loop, "gevent", SimpleNamespace(sleep=sleep, spawn=gevent.spawn))

    in_turn(clock, Turns(rest=3.0), "a", "a")

    assert max(slept) == pytest.approx(0.006)


def run(*works: Any) -> None:
    gevent.joinall([gevent.spawn(work) for work in works], raise_error=True)


def test_long_computation_lets_other_owners_compute(clock: Clock) -> None:
    order: list[str] = []

    def long() -> None:
        with computing_for("a"):
            for number in Pausing(range(6)):
                order.append(f"row {number}")
                clock.compute(2 * STEP_S)

    def short() -> None:
        with computing_for("b"):
            order.append("short")

    run(long, short)

    assert order.index("short") < order.index("row 2")


def test_resumed_request_waits_for_turn_while_another_request_computes(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(event_loop._steps.turns, "wait", waited.append)

    with computing_for("a"):
        resume()
        assert waited == []  # no other greenlet computes
        with computing_for("b"):
            resume()
            set_owner("c")
            resume()

    assert waited == ["b", "b", "c"]  # the first wait is from the start of b's block


def test_functions_for_turns_can_be_called_outside_requests(clock: Clock) -> None:
    clock.compute(10)
    pause()
    resume()
    set_owner("a")
    pause()
    assert list(Pausing([1, 2])) == [1, 2]
