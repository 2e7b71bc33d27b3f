"""Group commit: who waits at the same time shares one run, and gets their own result."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from apps.fleet.combining import Combiner
from tests.patience import PATIENCE_S, wait_until


def test_alone_a_caller_does_its_own_work() -> None:
    batches: list[list[int]] = []

    def work(items: Sequence[int]) -> list[int | None]:
        batches.append(list(items))
        return [item * 2 for item in items]

    combiner = Combiner(work)

    assert combiner.submit("a", 21) == 42
    assert batches == [[21]]


def _submit_while_busy(keys: list[str], *, limit: int = 500) -> tuple[list[list[str]], dict[int, object]]:
    """Submit all keys while a first run is under way; the batches after it, and what each got."""
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


def test_those_who_wait_share_one_run() -> None:
    batches, got = _submit_while_busy(["a", "b", "c"])

    assert batches == [["a", "b", "c"]]
    assert got == {0: "A", 1: "B", 2: "C"}


def test_one_item_of_a_key_a_batch() -> None:
    batches, got = _submit_while_busy(["a", "b", "a", "c"])

    assert batches == [["a", "b"], ["a", "c"]]
    assert got == {0: "A", 1: "B", 2: "A", 3: "C"}


def test_a_batch_has_a_limit() -> None:
    batches, _ = _submit_while_busy(["a", "b", "c"], limit=2)

    assert batches == [["a", "b"], ["c"]]


def test_an_error_reaches_everybody_of_its_batch_and_nobody_else() -> None:
    batches, got = _submit_while_busy(["a", "bad", "c"], limit=2)

    assert batches == [["a", "bad"], ["c"]]
    assert got == {0: "bad batch", 1: "bad batch", 2: "C"}


def test_it_works_on_after_an_error() -> None:
    def work(items: Sequence[int]) -> list[int | None]:
        return [1 // item for item in items]

    combiner = Combiner(work)

    with pytest.raises(ZeroDivisionError):
        combiner.submit("a", 0)
    assert combiner.submit("a", 1) == 1
