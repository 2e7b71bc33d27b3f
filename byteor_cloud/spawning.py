"""Start our own modules as child processes, without stopping the event loop for it.

gevent replaces ``subprocess.Popen`` by one that forks in Python. That copies the memory map of an API process, which
delays all of its requests by 20 to 80 ms. ``posix_spawn`` copies nothing, and takes less than a millisecond.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress

from gevent.monkey import get_original

# gevent's versions watch the child in the event loop, and would take its exit status.
_spawn = get_original("os", "posix_spawn")
_wait = get_original("os", "waitpid")


class Child:
    """A process that runs a module of ours in a session of its own. ``socket`` is its standard input and output."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str]) -> None:
        """Start the process. Raises OSError."""
        self._code: int | None = None
        self.socket, theirs = socket.socketpair()
        os.set_blocking(theirs.fileno(), True)  # gevent made it otherwise
        # With -P the child does not import modules from the folder that this process was started in.
        command = [sys.executable, "-P", "-m", module, *arguments]
        duplicates = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), number) for number in (0, 1)]
        try:
            self.pid: int = _spawn(command[0], command, environment, file_actions=duplicates, setsid=True)
        except OSError:
            self.socket.close()
            raise
        finally:
            theirs.close()

    def end(self) -> int:
        """Kill the process if it still runs, and return its exit code, or the negative number of its signal."""
        self.socket.close()
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(_wait(self.pid, 0)[1])
        return self._code
