"""Turns in the event loop of an API process, so that no caller computes for long while others wait.

gevent switches to another greenlet only when the current one waits. Two kinds of work therefore wait for turns:
requests that arrive before the previous response on their connection was sent, and the steps of ordinary requests
between their waits for the database. Heartbeats and probes need turns only in the first case, and reading new requests
needs none.

In a process without an event loop (a worker, a command, a test) nothing waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import override

import gevent
from gevent.event import Event
from gevent.monkey import is_module_patched

# The seconds for which a request may compute before it lets other requests compute.
STEP_S = 0.003


class Turns:
    """Turns for work that is ready. The owner that has used the least time goes first.

    The work of one owner is done in order of arrival. Each iteration of the event loop checks all connections for new
    data. In one iteration, turns start for at most ``BUDGET_S`` seconds in total. If more work is waiting after these
    turns, the next turn starts only after ``rest`` times the time that they took.
    """

    BUDGET_S = 0.001
    _NEXT_ITERATION_S = 1e-6  # the shortest sleep during which the event loop checks for new events
    _HALVED_EVERY_S = 1.0  # the interval at which used times are halved, so that recent use counts most

    def __init__(self, *, rest: float = 0.0) -> None:
        self._waiting: dict[str, deque[Event]] = {}
        self._used_s: dict[str, float] = {}
        self._halve_at = 0.0
        self._rest = rest
        self._is_giving = False

    def wait(self, owner: str) -> None:
        """Wait for a turn."""
        turn = Event()
        self._waiting.setdefault(owner, deque()).append(turn)
        if not self._is_giving:
            self._is_giving = True
            gevent.spawn(self._give)
        turn.wait()

    def _give(self) -> None:
        now = began = time.monotonic()
        while self._waiting:
            gevent.sleep(max(self._NEXT_ITERATION_S, (now - began) * self._rest))
            now = began = time.monotonic()
            while self._waiting and now < began + self.BUDGET_S:
                owner = min(self._waiting, key=lambda each: self._used_s.get(each, 0.0))
                self._take_first(owner).set()
                gevent.sleep(0)  # the work continues until it waits for something
                ended = time.monotonic()
                self._used_s[owner] = self._used_s.get(owner, 0.0) + ended - now
                now = ended
            self._halve(now)
        self._is_giving = False

    def _take_first(self, owner: str) -> Event:
        queue = self._waiting[owner]
        turn = queue.popleft()
        if not queue:
            del self._waiting[owner]
        return turn

    def _halve(self, now: float) -> None:
        if now >= self._halve_at:
            self._halve_at = now + self._HALVED_EVERY_S
            self._used_s = {owner: used / 2 for owner, used in self._used_s.items() if used > self.BUDGET_S}


class _Steps:
    """The turns and the number of the requests that compute in this process."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.count = 0
        self.began = 0.0  # when the current step started


_steps = _Steps()
_owner: ContextVar[str | None] = ContextVar("owner", default=None)


@contextmanager
def computing_for(owner: str) -> Iterator[None]:
    """Let the greenlet take turns with others inside the block, on behalf of ``owner``."""
    if not is_module_patched("threading"):
        yield
        return
    token = _owner.set(owner)
    _steps.count += 1
    try:
        resume()
        yield
    finally:
        _steps.count -= 1
        _owner.reset(token)


def set_owner(owner: str) -> None:
    """Count the greenlet's further work for another owner, if it takes turns."""
    if _owner.get() is not None:
        _owner.set(owner)


def resume() -> None:
    """Wait for a turn to continue computing after a wait.

    Does nothing outside ``computing_for``. Does not wait if no other greenlet is inside ``computing_for``.
    """
    owner = _owner.get()
    if owner is not None:
        if _steps.count > 1:
            _steps.turns.wait(owner)
        _steps.began = time.monotonic()


def pause() -> None:
    """Let other greenlets compute if this one has computed for ``STEP_S``. Call this often in long computations.

    Does nothing outside ``computing_for``.
    """
    owner = _owner.get()
    if owner is not None and time.monotonic() > _steps.began + STEP_S:
        _steps.turns.wait(owner)
        _steps.began = time.monotonic()


class Pausing[T](list[T]):
    """A list whose iteration lets other greenlets compute between items."""

    @override
    def __iter__(self) -> Iterator[T]:
        return pausing(super().__iter__())


def pausing[T](items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and let other greenlets compute between them."""
    for item in items:
        pause()
        yield item
