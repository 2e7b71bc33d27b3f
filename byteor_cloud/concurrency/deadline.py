"""The deadline of a request: the seconds for which it may wait, in total, for the database and for other requests.

A database server whose processes are stopped keeps its connections open and sends nothing, so only a time limit reveals
it. Separate limits for the many waits of a request would add up, so all of them share one allowance. Time spent on a
slow client, in a long poll, or on computing and waiting for the compute slot does not count.

PostgreSQL itself cancels a statement of an API process after a time (``database.connections.TIMEOUTS``) that is less
than ``REQUEST_S``. A live server therefore usually reports a slow statement before the deadline, and the connection
survives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

REQUEST_S = 8.0
# The minimum allowance in seconds of a batch's leader. A working database needs less time. A request that released its
# slot, for example to wait for its body, gets the same minimum when it takes a slot again.
LEAST_S = 1.0


class _Allowance:
    """The seconds for which a request may still wait."""

    __slots__ = ("clock", "left_s")

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.left_s, self.clock = seconds, clock


_allowance: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def limited(seconds: float, *, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Limit the total seconds for which this thread or greenlet waits inside the block."""
    token = _allowance.set(_Allowance(seconds, clock))
    try:
        yield
    finally:
        _allowance.reset(token)


@contextmanager
def waiting() -> Iterator[float | None]:
    """Subtract the time of the block from the allowance. Yields the remaining seconds, or None if there is no limit."""
    allowance = _allowance.get()
    if allowance is None:
        yield None
        return
    began = allowance.clock()
    try:
        yield max(0.0, allowance.left_s)
    finally:
        allowance.left_s -= allowance.clock() - began


def is_limited() -> bool:
    """Return whether the waits of this thread or greenlet are limited."""
    return _allowance.get() is not None


def is_over() -> bool:
    """Return whether the waits of this thread or greenlet are limited and no time is left."""
    allowance = _allowance.get()
    return allowance is not None and allowance.left_s <= 0


def ensure_least() -> None:
    """Extend the deadline so that at least ``LEAST_S`` is left."""
    allowance = _allowance.get()
    if allowance is not None:
        allowance.left_s = max(allowance.left_s, LEAST_S)
