"""The supervisor of `manage.py serve`: it keeps the child processes running and stops them when it stops.

Run as a script, this file executes the program of a child, which on Linux gets SIGTERM when its parent dies.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

_log = logging.getLogger(__name__)

# The seconds before successive restarts of a child. The last delay repeats.
_RESTART_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_STEADY_SECONDS = 60.0  # if the child ran for this long, the delays start again from the first
_STOP_SECONDS = 30.0
_PROBE_SECONDS = 0.05
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_PR_SET_PDEATHSIG = 1


class Child(NamedTuple):
    """A program to keep running. Without a ``ready_probe``, the program counts as ready when it has started."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready_probe: Callable[[], bool] | None = None
    folder: str | None = None  # the working folder of the program; by default that of this process


def run(children: Sequence[Child], on_ready: Callable[[], None]) -> int:
    """Run the children until SIGTERM or SIGINT, and call ``on_ready`` when all of them are ready.

    A child that exits is restarted with growing delays. After SIGTERM or SIGINT, the children get SIGTERM. Those that
    still run after 30 s, or at a second signal, are killed. Returns 0, or 1 if a child had to be killed.
    On Linux, the children also get SIGTERM when this process is killed. On other systems, they continue to run.
    Call this in the main thread, because it installs signal handlers.
    """
    supervised: list[_SupervisedChild] = []
    with _catch_signals() as received:
        try:
            supervised.extend(_SupervisedChild(child) for child in children)
            _keep_running(supervised, on_ready, received)
        finally:
            was_orderly = _stop(supervised, received)
    return 0 if was_orderly else 1


class _SupervisedChild:
    """A child and its current process."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.is_ready = child.ready_probe is None
        self._deaths = 0
        self._start()

    def _start(self) -> None:
        self.restart_at: float | None = None
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), *self.child.argv],
            env=self.child.env,
            cwd=self.child.folder,
            stdin=subprocess.DEVNULL,
            process_group=0,  # so that Ctrl-C reaches only the supervisor, which then stops the children
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def update(self) -> None:
        """Check whether the child is ready. If it has exited, restart it after a delay."""
        now = time.monotonic()
        if self.is_running:
            if not self.is_ready and self.child.ready_probe is not None:
                self.is_ready = self.child.ready_probe()
        elif self.restart_at is None:
            if now - self._started_at >= _STEADY_SECONDS:
                self._deaths = 0
            delay = _RESTART_DELAYS[min(self._deaths, len(_RESTART_DELAYS) - 1)]
            self._deaths += 1
            self.restart_at = now + delay
            # Stop the child's own child processes, which must release its port.
            self.signal(signal.SIGTERM, whole_group=True)
            _log.warning(
                "%s exited unexpectedly (%s); restarting it in %g s",
                self.child.name,
                _describe(self._process.returncode),
                delay,
            )
        if self.restart_at is not None and now >= self.restart_at:
            self._start()

    def signal(self, number: signal.Signals, *, whole_group: bool = False) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS raises PermissionError for a group of zombies
            if whole_group:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def wait(self) -> None:
        self._process.wait()


class _StopSignals:
    """The number of stop signals so far, and a sleep that each caught signal interrupts."""

    def __init__(self, wakeups: int) -> None:
        self.stops = 0
        self._wakeups = wakeups

    def sleep(self, seconds: float | None) -> None:
        if select.select([self._wakeups], [], [], seconds)[0]:
            numbers = os.read(self._wakeups, 1024)
            self.stops += sum(number in _STOP_SIGNALS for number in numbers)


@contextmanager
def _catch_signals() -> Iterator[_StopSignals]:
    """Catch the stop signals, and SIGCHLD, which interrupts a sleep when a child exits."""
    wakeups, wake = os.pipe()
    os.set_blocking(wake, False)
    before = {number: signal.signal(number, lambda *_: None) for number in (*_STOP_SIGNALS, signal.SIGCHLD)}
    previous_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield _StopSignals(wakeups)
    finally:
        signal.set_wakeup_fd(previous_wake)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wakeups)
        os.close(wake)


def _keep_running(supervised: Sequence[_SupervisedChild], on_ready: Callable[[], None], received: _StopSignals) -> None:
    was_ready = False
    while not received.stops:
        for each in supervised:
            each.update()
        if not was_ready and all(each.is_ready and each.is_running for each in supervised):
            was_ready = True
            on_ready()
        restarts = [each.restart_at - time.monotonic() for each in supervised if each.restart_at is not None]
        pauses = [max(0.0, pause) for pause in restarts]
        if not was_ready:
            pauses.append(_PROBE_SECONDS)
        received.sleep(min(pauses, default=None))


def _stop(supervised: Sequence[_SupervisedChild], received: _StopSignals) -> bool:
    """Stop all children. Return False if one had to be killed."""
    for each in supervised:
        each.signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while any(each.is_running for each in supervised):
        left = deadline - time.monotonic()
        if left <= 0 or received.stops > 1:
            break
        received.sleep(left)
    was_orderly = True
    for each in supervised:
        if each.is_running:
            _log.error("%s is still running; killing it", each.child.name)
            was_orderly = False
        each.signal(signal.SIGKILL, whole_group=True)  # including its own child processes
        each.wait()
    return was_orderly


def _describe(returncode: int) -> str:
    return f"exit code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


def _run_program(parent: int, argv: list[str]) -> None:
    """Replace this process with the child's program, which on Linux gets SIGTERM when its parent dies.

    The supervisor runs this function in a separate program, because a process with threads cannot safely run Python
    code between fork and exec.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only this script needs ctypes, not the supervisor

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # otherwise the parent died before the prctl call
        os.execvp(argv[0], argv)  # noqa: S606 - our own programs


if __name__ == "__main__":
    _run_program(int(sys.argv[1]), sys.argv[2:])
