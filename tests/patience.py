"""Waiting for other threads and processes, with a timeout so long that only a failing test reaches it.

Tests state what they wait for, but never how long it may take, because they must also pass on a slow or busy machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120.0


def wait_until(done: Callable[[], object], *, every_s: float | None = None) -> None:
    """Call ``done`` repeatedly until it returns a true value. Raises AssertionError after ``PATIENCE_S``.

    Without ``every_s``, ``done`` is called often at first and then less often, because its calls take processor time
    from the awaited work.
    """
    deadline = time.monotonic() + PATIENCE_S
    pause = 0.02
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every_s or pause)
        pause = min(pause * 1.2, 0.25)
