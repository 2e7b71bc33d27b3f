"""Delays between attempts to reach the control plane."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from .api import ControlPlaneUnavailable

_log = logging.getLogger("byteor.agent")
_FIRST_S = 1.0
_LONGEST_S = 60.0
# A random delay is added to a Retry-After time: at most this share of that time, or the backoff if that is longer.
_MAX_RANDOM_SHARE = 0.25


def _jitter() -> float:
    """Return a random factor from 0.1 to 1. It is never close to 0, so that a failing control plane gets a pause."""
    return secrets.SystemRandom().uniform(0.1, 1.0)


def backoff_s(failures: int, retry_after_s: float, jitter: float) -> float:
    """Return the seconds to wait after a failure that follows ``failures`` earlier ones, at least ``retry_after_s``.

    ``jitter`` is a random factor up to 1.
    """
    longest: float = min(_LONGEST_S, _FIRST_S * 2 ** min(failures, 10))
    # The whole fleet may have received the same Retry-After, so a random part is added to it.
    return retry_after_s + max(longest, retry_after_s * _MAX_RANDOM_SHARE) * jitter


class Backoff:
    """Random delays, so that the retries of a fleet are spread.

    Without a Retry-After, the longest possible delay doubles with each failure in a row, up to a limit.
    """

    def __init__(self, jitter: Callable[[], float] = _jitter) -> None:
        self._jitter = jitter
        self._failures = 0

    def reset(self) -> None:
        """Start again from the shortest delay."""
        self._failures = 0

    def spread_s(self, within_s: float) -> float:
        """Return a random delay up to ``within_s``."""
        return within_s * self._jitter()

    def delay_s(self, error: Exception) -> float:
        """Return the delay after this failure. It is at least the error's ``retry_after``, if there is one."""
        retry_after = (error.retry_after if isinstance(error, ControlPlaneUnavailable) else None) or 0.0
        self._failures += 1
        return backoff_s(self._failures - 1, retry_after, self._jitter())


def retry_while_unavailable[T](
    call: Callable[[], T], wait: Callable[[float], object], backoff: Backoff, tries: int | None = None
) -> T:
    """Return the result of ``call``. Retry after ControlPlaneUnavailable, up to ``tries`` calls in all.

    If ``tries`` is None, the number of calls is not limited.
    """
    failures = 0
    while True:
        try:
            return call()
        except ControlPlaneUnavailable as error:
            failures += 1
            if failures == tries:
                raise
            delay = backoff.delay_s(error)
            _log.warning("%s; trying again in %.1f s", error, delay)
            wait(delay)
