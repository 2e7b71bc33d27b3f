"""The pace at which unusable credentials are refused, so that a storm of them takes little time from good agents."""

from __future__ import annotations

import time

PER_S, AT_ONCE = 500.0, 100


class Pace:
    """Lets ``at_once`` things happen at any time, and more of them at ``per_s`` a second, one after the other."""

    def __init__(self, per_s: float = PER_S, at_once: int = AT_ONCE) -> None:
        self._step_s, self._slack_s = 1 / per_s, at_once / per_s
        self._due = 0.0  # when the next one may happen; less than now if there were few of them

    def wait(self) -> float:
        """Wait for the turn of the next one, without holding anything. Returns the seconds."""
        now = time.monotonic()
        self._due = max(self._due, now - self._slack_s) + self._step_s
        wait_s = max(0.0, self._due - now)
        if wait_s:
            time.sleep(wait_s)
        return wait_s
