"""The pace at which unusable credentials are refused, so that a storm of them takes little time from good agents."""

from __future__ import annotations

import time

import structlog

# A refusal takes as long as a heartbeat. So a storm takes a twentieth of a core from each process (docs/scale.md).
PER_S, AT_ONCE, LONGEST_S = 100.0, 50, 5.0
_TOLD_EVERY_S = 10.0
logger = structlog.get_logger(__name__)


class Pace:
    """Lets ``AT_ONCE`` refusals happen at any time, and more of them one after the other, ``PER_S`` in a second.

    The access log has no lines for those that had to wait, only their number every ten seconds.
    """

    def __init__(self) -> None:
        self._due = 0.0  # when the next one may happen; far in the past if there were few of them
        self._delayed, self._told_at = 0, 0.0

    def wait(self) -> float:
        """Wait for the turn of one refusal, holding only the client's connection. Returns the seconds."""
        now = time.monotonic()
        self._due = min(max(self._due, now - AT_ONCE / PER_S) + 1 / PER_S, now + LONGEST_S)
        if self._due <= now:
            return 0.0
        self._delayed += 1
        if self._told_at < now - _TOLD_EVERY_S:
            logger.warning("refusals_delayed", count=self._delayed)
            self._told_at, self._delayed = now, 0
        wait_s = self._due - now
        time.sleep(wait_s)
        return wait_s
