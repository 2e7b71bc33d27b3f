"""Waiting for other threads and processes, with a time-out so long that only a failure reaches it.

A test says what it waits for, never how long that takes: a busy machine is slow, and no slower machine is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120.0


def wait_until(done: Callable[[], object], *, every_s: float = 0.05) -> None:
    """Call ``done`` repeatedly until it returns a true value."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every_s)
