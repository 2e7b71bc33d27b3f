"""The pace at which callers are refused, so that a storm of refusals takes little time from good callers."""

from __future__ import annotations

import threading
import time

import structlog

# A refusal takes as long as a heartbeat. So a storm takes a twentieth of a core from each process (docs/scale.md).
PER_S, AT_ONCE, LONGEST_S = 100.0, 50, 5.0
_TOLD_EVERY_S = 10.0
logger = structlog.get_logger(__name__)


class Tally:
    """Counts what happens too often to be logged each time, and logs the number every ten seconds."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._count, self._told_at = 0, 0.0

    def add(self) -> None:
        """Count one more."""
        now = time.monotonic()
        self._count += 1
        if self._told_at < now - _TOLD_EVERY_S:
            logger.warning(self._event, count=self._count)
            self._told_at, self._count = now, 0


class Pace:
    """Lets ``AT_ONCE`` refusals happen at any time, and more of them one after the other, ``PER_S`` in a second.

    The access log has no lines for those that had to wait, only their number every ten seconds.
    """

    def __init__(self) -> None:
        self._due = 0.0  # when the next one may happen; far in the past if there were few of them
        self._delayed = Tally("refusals_delayed")

    def wait(self) -> float:
        """Wait for the turn of one refusal, holding only the client's connection. Returns the seconds."""
        now = time.monotonic()
        self._due = min(max(self._due, now - AT_ONCE / PER_S) + 1 / PER_S, now + LONGEST_S)
        if self._due <= now:
            return 0.0
        self._delayed.add()
        wait_s = self._due - now
        time.sleep(wait_s)
        return wait_s


class Allowance:
    """How often each key may do something: ``at_once`` times at any moment, and ``per_s`` times a second after that.

    It remembers the ``max_keys`` keys that did something last.
    """

    def __init__(self, *, per_s: float, at_once: int, max_keys: int = 10_000) -> None:
        self._step_s, self._credit_s = 1 / per_s, at_once / per_s
        self._max_keys = max_keys
        self._due: dict[str, float] = {}  # by key: the time at which its allowance is complete again
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Use the allowance of ``key`` once and return 0. If it is used up, return the seconds to wait instead."""
        with self._lock:
            now = time.monotonic()
            due = self._next(key, now)
            if due > now + self._credit_s:
                return due - now - self._credit_s
            self._due.pop(key, None)  # to put it at the end, behind those that did nothing for longer
            self._due[key] = due
            if len(self._due) > self._max_keys:
                del self._due[next(iter(self._due))]
            return 0.0

    def missing_s(self, key: str) -> float:
        """Return what ``take`` would return, without using the allowance."""
        with self._lock:
            now = time.monotonic()
            return max(0.0, self._next(key, now) - now - self._credit_s)

    def give_back(self, key: str) -> None:
        """Undo one use."""
        with self._lock:
            if key in self._due:
                self._due[key] -= self._step_s

    def _next(self, key: str, now: float) -> float:
        return max(self._due.get(key, now), now) + self._step_s
