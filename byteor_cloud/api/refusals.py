"""The pace at which requests are refused, which leaves time for valid requests, and rate limits kept in memory."""

from __future__ import annotations

import threading
import time

import structlog

# A refusal takes as long as a heartbeat. At this pace, refusals hardly delay valid requests (docs/scale.md).
PER_S, BURST, LONGEST_S = 100.0, 50, 5.0
_LOG_EVERY_S = 10.0
logger = structlog.get_logger(__name__)


class Tally:
    """A counter of events that are too frequent to log individually. It logs their number at most every ten seconds."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._count, self._logged_at = 0, 0.0

    def add(self) -> None:
        """Count one more event."""
        now = time.monotonic()
        self._count += 1
        if self._logged_at < now - _LOG_EVERY_S:
            logger.warning(self._event, count=self._count)
            self._logged_at, self._count = now, 0


class Pace:
    """A pace that allows a burst of ``BURST`` refusals, and then ``PER_S`` per second.

    No delay exceeds ``LONGEST_S``, so a great many simultaneous refusals exceed this pace. The number of delayed
    refusals is logged at most every ten seconds.
    """

    def __init__(self) -> None:
        self._due = 0.0  # when the latest refusal is due; in the past unless refusals are delayed
        self._delayed = Tally("refusals_delayed")

    def wait(self) -> float:
        """Wait until a refusal is due, at most ``LONGEST_S``. Return the waiting time. The caller must hold no slot."""
        now = time.monotonic()
        self._due = min(max(self._due, now - BURST / PER_S) + 1 / PER_S, now + LONGEST_S)
        if self._due <= now:
            return 0.0
        self._delayed.add()
        wait_s = self._due - now
        time.sleep(wait_s)
        return wait_s


class Allowance:
    """A rate limit per key: each key has a burst of ``burst`` uses, which refills at ``per_s`` uses per second.

    It tracks only the ``max_keys`` most recently used keys.
    """

    def __init__(self, *, per_s: float, burst: int, max_keys: int = 10_000) -> None:
        self._step_s, self._credit_s = 1 / per_s, burst / per_s
        self._max_keys = max_keys
        self._due: dict[str, float] = {}  # maps each key to the time at which its burst is fully refilled
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Use the allowance of ``key`` once and return 0. If nothing is left, return the seconds to wait instead."""
        with self._lock:
            now = time.monotonic()
            due = self._next(key, now)
            if due > now + self._credit_s:
                return due - now - self._credit_s
            self._due.pop(key, None)  # below, the key is added at the end, because keys are in order of their last use
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
        """Undo one use of the allowance of ``key``."""
        with self._lock:
            if key in self._due:
                self._due[key] -= self._step_s

    def _next(self, key: str, now: float) -> float:
        return max(self._due.get(key, now), now) + self._step_s
