"""Measurement of growth by counting function calls. Unlike times, the counts do not depend on the host's speed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType


def calls_made(work: Callable[[], object]) -> int:
    """Count the calls and the returns of Python and C functions while ``work`` runs."""
    count = 0

    def note(_frame: FrameType, _event: str, _argument: object) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def assert_in_proportion(work: Callable[[int], object], size: int) -> None:
    """Assert that four times the input needs less than about five times the calls. Quadratic code needs 16 times."""
    small, large = calls_made(lambda: work(size)), calls_made(lambda: work(4 * size))
    assert large < 5 * small + 1000, (small, large)
