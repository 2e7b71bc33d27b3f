"""Places that organizations share fairly, then the groups of their callers, then the callers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import NamedTuple

from byteor_cloud.errors import Unavailable


class Holder(NamedTuple):
    """Whom a place counts for."""

    organization: str
    group: str
    caller: str


class _Waiting:
    """One call of ``take`` that waits. Its lock is released when it gets a place."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.granted = threading.Lock()
        self.granted.acquire()


class FairPlaces:
    """Places that are shared fairly between organizations, then groups, then callers, each in order of arrival."""

    def __init__(self, count: int, *, waiting: int) -> None:
        self._free, self._most_waiting = count, waiting
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._held: Counter[tuple[str, ...]] = Counter()
        self._served: dict[tuple[str, ...], float] = {}

    def take(self, holder: Holder, *, timeout_s: float) -> None:
        """Wait for a place and hold it. Raises Unavailable if none becomes free in time, or too many wait already."""
        with self._lock:
            if self._free:
                self._grant(holder)
                return
            if len(self._waiting) >= self._most_waiting:
                raise _busy()
            mine = _Waiting(holder)
            self._waiting.append(mine)
        try:
            is_granted = mine.granted.acquire(timeout=timeout_s)
        except BaseException:  # the greenlet is killed
            self._leave(mine)
            raise
        if not is_granted and self._leave(mine, keeps_grant=True):
            raise _busy()

    def give_back(self, holder: Holder) -> None:
        """Give the place back; the next one in turn gets it."""
        with self._lock:
            for key in _keys(holder):
                self._held[key] -= 1
            self._free += 1
            self._next()

    def _leave(self, mine: _Waiting, *, keeps_grant: bool = False) -> bool:
        """Stop waiting. Returns False if the place was granted just now; without ``keeps_grant`` it is given back."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return True
        if not keeps_grant:
            self.give_back(mine.holder)
        return False

    def _next(self) -> None:
        if not (self._free and self._waiting):
            return
        chosen = min(self._waiting, key=lambda each: [self._share(key) for key in _keys(each.holder)])
        self._waiting.remove(chosen)
        self._grant(chosen.holder)
        chosen.granted.release()
        if not self._waiting:
            self._served.clear()

    def _share(self, key: tuple[str, ...]) -> tuple[int, float]:
        return self._held[key], self._served.get(key, 0.0)

    def _grant(self, holder: Holder) -> None:
        self._free -= 1
        for key in _keys(holder):
            self._held[key] += 1
            self._served[key] = time.monotonic()


def _keys(holder: Holder) -> list[tuple[str, ...]]:
    return [tuple(holder[:depth]) for depth in (1, 2, 3)]


def _busy() -> Unavailable:
    return Unavailable("The service is busy. Try again later.", retry_after=10)
