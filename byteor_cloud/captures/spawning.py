"""Start our own modules as child processes without stalling the event loop.

gevent replaces ``subprocess.Popen`` with a version that forks in Python. A fork copies the memory map of an API process
and delays all of its requests by 20 to 80 ms. ``posix_spawn`` copies nothing and takes less than a millisecond.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping

import gevent
from gevent.monkey import is_module_patched


class Child:
    """A process that runs one of our modules in a separate session.

    ``socket`` is connected to the process's standard input and output.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str]) -> None:
        """Start the process. Raises OSError."""
        self._code: int | None = None
        self.socket, theirs = socket.socketpair()
        os.set_blocking(theirs.fileno(), True)  # gevent creates non-blocking sockets
        # Without -P, the child would import modules from the folder in which this process was started.
        command = [sys.executable, "-P", "-m", module, *arguments]
        duplicates = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), number) for number in (0, 1)]
        if is_module_patched("os"):
            # Otherwise gevent would miss the exit of the first child if it exits immediately, and wait forever.
            gevent.get_hub().loop.install_sigchld()
        try:
            self.pid = os.posix_spawn(command[0], command, environment, file_actions=duplicates, setsid=True)
        except OSError:
            self.socket.close()
            raise
        finally:
            theirs.close()

    def kill(self) -> int:
        """Close the socket, and kill the process if it still runs.

        Returns its exit code, or the negative number of the signal that killed it.
        """
        self.socket.close()
        if self._code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if not ended:  # the id of a process that has exited may belong to another process
                os.kill(self.pid, signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
            self._code = os.waitstatus_to_exitcode(status)
        return self._code
