"""When to try again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from .api import Unavailable

_log = logging.getLogger("byteor.agent")
_FIRST_S = 1.0
_LONGEST_S = 60.0


def _jitter() -> float:
    return secrets.SystemRandom().uniform(0.5, 1.0)


class Backoff:
    """Delays that double with each failure in a row, spread so that a fleet does not come back at once."""

    def __init__(self, jitter: Callable[[], float] = _jitter) -> None:
        self._jitter = jitter
        self._failures = 0

    def reset(self) -> None:
        """Start again from the shortest delay."""
        self._failures = 0

    def delay_s(self, error: Exception) -> float:
        """Return how long to wait after this failure: what the control plane said, else the next delay."""
        delay = min(_LONGEST_S, _FIRST_S * 2 ** min(self._failures, 10)) * self._jitter()
        self._failures += 1
        asked = error.retry_after if isinstance(error, Unavailable) else None
        return delay if asked is None else asked


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
