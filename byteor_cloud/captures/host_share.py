"""How compute processes share a host with the processes that serve requests. Does not use Django."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NICENESS = 10  # under contention, gives a tenth of the processor time of a process that serves requests
_PR_SET_PDEATHSIG = 1


def lower_priority() -> None:
    """Lower this process's priority. On Linux, also use the same core as other processes that called this function."""
    os.nice(_NICENESS)
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid this call
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with suppress(OSError):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def exit_with_parent(parent: int) -> None:
    """Exit if ``parent``, the process that started this one, has exited.

    On Linux, the kernel also kills this process if the parent exits later.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent exited before the call
        os._exit(1)


class Turn:
    """The host's single compute turn: a lock file, which the kernel unlocks when the process that locked it dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the turn and keep it while the block runs."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
