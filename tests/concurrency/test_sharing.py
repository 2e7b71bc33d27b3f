"""Tests of results that concurrent callers share."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from byteor_cloud.concurrency import sharing
from byteor_cloud.concurrency.sharing import Shared


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(sharing, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_concurrent_callers_share_one_call() -> None:
    began, may_end = threading.Event(), threading.Event()
    calls: list[int] = []
    results: list[int] = []

    def compute() -> int:
        calls.append(1)
        began.set()
        may_end.wait()
        return len(calls)

    shared = Shared(compute, for_s=3600)
    threads = [threading.Thread(target=lambda: results.append(shared.get())) for _ in range(10)]
    for thread in threads:
        thread.start()
    began.wait()
    may_end.set()
    for thread in threads:
        thread.join()

    assert (results, len(calls)) == ([1] * 10, 1)


def test_shared_result_is_kept_for_one_second_by_default(clock: SimpleNamespace) -> None:
    numbers = iter(range(10))
    shared = Shared(lambda: next(numbers))

    seen = []
    for now in (1000.0, 1000.9, 1001.0, 1001.5, 1002.0):
        clock.now = now
        seen.append(shared.get())

    assert seen == [0, 0, 1, 1, 2]


def test_lifetime_of_shared_result_starts_when_call_finishes(clock: SimpleNamespace) -> None:
    def compute() -> float:
        clock.now += 5
        return float(clock.now)

    shared = Shared(compute)

    assert (shared.get(), shared.get()) == (1005.0, 1005.0)


def test_error_is_shared_and_its_traceback_does_not_grow(clock: SimpleNamespace) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise ValueError("down")

    shared = Shared(fail)
    depths = []
    for _ in range(3):
        with pytest.raises(ValueError, match="down") as raised:
            shared.get()
        depths.append(len(raised.traceback))

    assert len(calls) == 1
    assert len(set(depths)) == 1
    clock.now += 1
    with pytest.raises(ValueError, match="down"):
        shared.get()
    assert len(calls) == 2


def test_discarded_result_is_recomputed(clock: SimpleNamespace) -> None:
    numbers = iter(range(10))
    shared = Shared(lambda: next(numbers))
    shared.get()

    shared.discard()

    assert shared.get() == 1
