"""Keeps the processes of `manage.py serve` running, and takes them along when it ends.

Run as a script, this file is the other half: it ties itself to its parent and becomes the child's program.
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

# Seconds before each restart of a child that keeps dying; the last one repeats.
_BACK_OFF = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_STEADY_SECONDS = 60.0  # a child that lived this long starts over with the back-off
_STOP_SECONDS = 30.0
_PROBE_SECONDS = 0.05
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_PR_SET_PDEATHSIG = 1


class Child(NamedTuple):
    """A program to keep running; without a probe it is ready as soon as it has started."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready_probe: Callable[[], bool] | None = None


def run(children: Sequence[Child], on_ready: Callable[[], None]) -> int:
    """Run the children until SIGTERM or SIGINT; call `on_ready` once, when all of them are.

    A child that ends is started again, at once and then ever later. Either signal reaches the children as
    SIGTERM; those that live on after 30 s, or at a second signal, are killed. Returns 0, or 1 after a kill.
    On Linux they get SIGTERM also when this process is killed; elsewhere they live on. For the main thread.
    """
    kept: list[_Kept] = []
    with _signals() as received:
        try:
            kept.extend(_Kept(child) for child in children)
            _keep_running(kept, on_ready, received)
        finally:
            was_orderly = _stop(kept, received)
    return 0 if was_orderly else 1


class _Kept:
    """A child and its present process."""

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
            stdin=subprocess.DEVNULL,
            process_group=0,  # a Ctrl-C is for the supervisor alone, which passes it on once
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def tend(self) -> None:
        """Start the child again if it has died and its time has come; ask it whether it is ready."""
        now = time.monotonic()
        if self.is_running:
            if not self.is_ready and self.child.ready_probe is not None:
                self.is_ready = self.child.ready_probe()
        elif self.restart_at is None:
            if now - self._started_at >= _STEADY_SECONDS:
                self._deaths = 0
            delay = _BACK_OFF[min(self._deaths, len(_BACK_OFF) - 1)]
            self._deaths += 1
            self.restart_at = now + delay
            # What it had started itself must not hold on to its port.
            self.signal(signal.SIGTERM, whole_group=True)
            _log.warning(
                "%s ended by itself (%s); starting it again in %g s",
                self.child.name,
                _describe(self._process.returncode),
                delay,
            )
        if self.restart_at is not None and now >= self.restart_at:
            self._start()

    def signal(self, number: signal.Signals, *, whole_group: bool = False) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            if whole_group:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def wait(self) -> None:
        self._process.wait()


class _Received:
    """The stop signals so far, and a way to sleep until the next signal of any kind."""

    def __init__(self, wakeups: int) -> None:
        self.stops = 0
        self._wakeups = wakeups

    def sleep(self, seconds: float | None) -> None:
        if select.select([self._wakeups], [], [], seconds)[0]:
            numbers = os.read(self._wakeups, 1024)
            self.stops += sum(number in _STOP_SIGNALS for number in numbers)


@contextmanager
def _signals() -> Iterator[_Received]:
    """Catch the stop signals, and wake up when a child ends."""
    wakeups, wake = os.pipe()
    os.set_blocking(wake, False)
    before = {number: signal.signal(number, lambda *_: None) for number in (*_STOP_SIGNALS, signal.SIGCHLD)}
    previous_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield _Received(wakeups)
    finally:
        signal.set_wakeup_fd(previous_wake)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wakeups)
        os.close(wake)


def _keep_running(kept: Sequence[_Kept], on_ready: Callable[[], None], received: _Received) -> None:
    has_told = False
    while not received.stops:
        for each in kept:
            each.tend()
        if not has_told and all(each.is_ready and each.is_running for each in kept):
            has_told = True
            on_ready()
        restarts = [each.restart_at - time.monotonic() for each in kept if each.restart_at is not None]
        pauses = [max(0.0, pause) for pause in restarts]
        if not has_told:
            pauses.append(_PROBE_SECONDS)
        received.sleep(min(pauses, default=None))


def _stop(kept: Sequence[_Kept], received: _Received) -> bool:
    """End all children; tell whether each did so by itself."""
    for each in kept:
        each.signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while any(each.is_running for each in kept):
        left = deadline - time.monotonic()
        if left <= 0 or received.stops > 1:
            break
        received.sleep(left)
    was_orderly = True
    for each in kept:
        if each.is_running:
            _log.error("%s did not end in time: killing it", each.child.name)
            was_orderly = False
        each.signal(signal.SIGKILL, whole_group=True)  # and what a child left behind
        each.wait()
    return was_orderly


def _describe(returncode: int) -> str:
    return f"exit code {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


def _become(parent: int, argv: list[str]) -> None:
    """Turn this process into the program that dies with its parent.

    After an exec of its own: between fork and exec no Python code may safely run in a process with threads.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - the supervisor itself has no use for it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # else it died before it could be tied to
        os.execvp(argv[0], argv)  # noqa: S606 - our own programs


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
