"""Tests of flat combining: callers that wait at the same time share batches, and each gets its own result."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from byteor_cloud.concurrency import deadline
from byteor_cloud.concurrency.combining import Combiner
from byteor_cloud.errors import Unavailable
from tests.patience import PATIENCE_S, wait_until


def test_single_caller_runs_its_item_as_batch_of_one() -> None:
    batches: list[list[int]] = []

    def work(items: Sequence[int]) -> list[int | None]:
        batches.append(list(items))
        return [item * 2 for item in items]

    combiner = Combiner(work)

    assert combiner.submit("a", 21) == 42
    assert batches == [[21]]


def _submit_while_busy(keys: list[str], *, limit: int = 500) -> tuple[list[list[str]], dict[int, object]]:
    """Submit all keys while a first batch runs. Return the later batches, and each caller's result or error."""
    busy, go_on = threading.Event(), threading.Event()
    batches: list[list[str]] = []
    got: dict[int, object] = {}

    def work(items: Sequence[str]) -> list[str | None]:
        if items == ["first"]:
            busy.set()
            assert go_on.wait(PATIENCE_S)
        else:
            batches.append(list(items))
        if "bad" in items:
            raise ValueError("bad batch")
        return [item.upper() for item in items]

    combiner = Combiner(work, limit=limit)

    def submit(number: int, key: str) -> None:
        try:
            got[number] = combiner.submit(key, key)
        except ValueError as error:
            got[number] = str(error)

    threads = [threading.Thread(target=submit, args=(-1, "first"))]
    threads[0].start()
    assert busy.wait(PATIENCE_S)
    for number, key in enumerate(keys):
        threads.append(threading.Thread(target=submit, args=(number, key)))
        threads[-1].start()
        wait_until(lambda number=number: len(combiner._queue) > number, every_s=0.001)  # type: ignore[misc]
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert got.pop(-1) == "FIRST"
    return batches, got


def test_waiting_callers_share_batch() -> None:
    batches, got = _submit_while_busy(["a", "b", "c"])

    assert batches == [["a", "b", "c"]]
    assert got == {0: "A", 1: "B", 2: "C"}


def test_batch_has_at_most_one_item_per_key() -> None:
    batches, got = _submit_while_busy(["a", "b", "a", "c"])

    assert batches == [["a", "b"], ["a", "c"]]
    assert got == {0: "A", 1: "B", 2: "A", 3: "C"}


def test_batch_size_is_limited() -> None:
    batches, _ = _submit_while_busy(["a", "b", "c"], limit=2)

    assert batches == [["a", "b"], ["c"]]


def test_error_reaches_only_callers_in_its_batch() -> None:
    batches, got = _submit_while_busy(["a", "bad", "c"], limit=2)

    assert batches == [["a", "bad"], ["c"]]
    assert got == {0: "bad batch", 1: "bad batch", 2: "C"}


def test_combiner_continues_after_error() -> None:
    def work(items: Sequence[int]) -> list[int | None]:
        return [1 // item for item in items]

    combiner = Combiner(work)

    with pytest.raises(ZeroDivisionError):
        combiner.submit("a", 0)
    assert combiner.submit("a", 1) == 1


def test_waiting_callers_fail_when_leader_exceeds_deadline() -> None:
    busy, go_on = threading.Event(), threading.Event()
    batches: list[list[int]] = []
    now = [0.0]
    failed: list[str] = []

    def work(items: Sequence[int]) -> list[int | None]:
        batches.append(list(items))
        busy.set()
        assert go_on.wait(PATIENCE_S)
        with deadline.waiting():
            now[0] += 9
        raise ValueError("no response")

    combiner = Combiner(work)

    def submit(number: int) -> None:
        with deadline.limited(8, clock=lambda: now[0]):
            try:
                combiner.submit(number, number)
            except (ValueError, Unavailable) as error:
                failed.append(str(error))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
    threads[0].start()
    assert busy.wait(PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: len(combiner._queue) == 3, every_s=0.001)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert batches == [[0]]
    assert sorted(failed) == ["The database is not responding. Try again later."] * 3 + ["no response"]
    assert not combiner._has_leader
