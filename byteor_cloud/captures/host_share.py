"""How the processes that compute share a host with those that serve requests. Pure: no Django."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NICENESS = 10  # a tenth of the processor time of a process that serves, if both want it
_PR_SET_PDEATHSIG = 1


def lower_priority() -> None:
    """Let other processes go first, and use the same core as every other process that called this function.

    With one core for all of them, computing leaves the other cores of the host to the processes that serve.
    """
    os.nice(_NICENESS)
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with suppress(OSError):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the process ``parent``, which started it, has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before the call
        os._exit(1)


class Turn:
    """The host's only turn to compute: a locked file, which the kernel unlocks when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the turn, and hold it while the block runs."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
