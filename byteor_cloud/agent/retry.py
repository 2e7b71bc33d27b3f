"""When to try again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from .api import Unavailable

_log = logging.getLogger("byteor.agent")
_FIRST_S = 1.0
_LONGEST_S = 60.0
_SHARE = 0.25  # of the time that was asked for; the random part is at most as long


def _jitter() -> float:
    """Return a random part of 1, and not nearly 0: a failing control plane deserves a pause."""
    return secrets.SystemRandom().uniform(0.1, 1.0)


class Backoff:
    """Delays that double with each failure in a row, spread so that a fleet does not come back at once."""

    def __init__(self, jitter: Callable[[], float] = _jitter) -> None:
        self._jitter = jitter
        self._failures = 0

    def reset(self) -> None:
        """Start again from the shortest delay."""
        self._failures = 0

    def spread_s(self, within_s: float) -> float:
        """Return a random part of ``within_s``."""
        return within_s * self._jitter()

    def delay_s(self, error: Exception) -> float:
        """Return how long to wait after this failure: the next delay, or longer than the control plane asked for."""
        longest: float = min(_LONGEST_S, _FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        asked = (error.retry_after if isinstance(error, Unavailable) else None) or 0.0
        # Never earlier than asked, and with a random part of our own: the whole fleet may have been told the same.
        return asked + max(longest, asked * _SHARE) * self._jitter()


def insist[T](call: Callable[[], T], wait: Callable[[float], object], backoff: Backoff, tries: int | None = None) -> T:
    """Call until the control plane gives a usable answer; the last of ``tries`` raises ``Unavailable``."""
    failures = 0
    while True:
        try:
            return call()
        except Unavailable as error:
            failures += 1
            if failures == tries:
                raise
            delay = backoff.delay_s(error)
            _log.warning("%s; trying again in %.1f s", error, delay)
            wait(delay)
