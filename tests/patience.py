"""Waiting for other threads and processes, with a timeout so long that only a failing test reaches it.

A test says what it waits for, never how long that may take, because it must also pass on a slow or busy machine.
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
