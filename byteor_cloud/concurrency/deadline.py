"""The deadline of a request: the seconds for which it may wait, in total, for the database and for other requests.

A server whose processes are stopped keeps its connections open and sends nothing, so that only a time limit reveals it.
A limit for each wait would add up over the many waits of a request. So all waits of a request share one allowance. The
time of a slow client, of a poll that waits on purpose and of computing does not count.

PostgreSQL itself cancels a statement after ``database.connections.TIMEOUTS``, shortly before the deadline. So a server
that is alive reports a slow statement and keeps its connection; only one that hangs, or a request with several slow
statements, reaches the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

REQUEST_S = 8.0
# A database that works needs less. Whoever acts for others gets at least this, and so does a request whose body has
# arrived, even if the wait for its turn has used up its own allowance.
LEAST_S = 1.0


class _Allowance:
    """The seconds that are left."""

    __slots__ = ("clock", "left_s")

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.left_s, self.clock = seconds, clock


_allowance: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def limited(seconds: float, *, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Limit the time that the waits of this thread or greenlet take inside the block, in total."""
    token = _allowance.set(_Allowance(seconds, clock))
    try:
        yield
    finally:
        _allowance.reset(token)


@contextmanager
def waiting() -> Iterator[float | None]:
    """Count the time that the block takes. Yields the seconds that it may take, or None if there is no limit."""
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
    """Return whether no time is left."""
    allowance = _allowance.get()
    return allowance is not None and allowance.left_s <= 0


def ensure_least() -> None:
    """Extend the deadline so that at least ``LEAST_S`` is left."""
    allowance = _allowance.get()
    if allowance is not None:
        allowance.left_s = max(allowance.left_s, LEAST_S)
