"""Readiness checks. Each runs in its own thread or greenlet, so that a check that hangs does not hide the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import structlog

from byteor_cloud.concurrency import deadline
from byteor_cloud.database.connections import release_connection

CHECK_S = 3.0
logger = structlog.get_logger("byteor.access")


class CheckFailed(Exception):
    """A readiness check failed."""


class _Run:
    """One run of a check. ``is_over`` is set after ``has_passed`` has its final value."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.has_passed = False


class Check:
    """A function that raises an exception if the service is not ready, and the name of what it checks.

    A probe waits for the check for at most ``seconds``, and then counts it as failed. The check does not run twice at
    the same time: further probes wait for the same run, so that probes of a hanging service do not occupy one database
    connection each.
    """

    def __init__(self, name: str, function: Callable[[], object], *, seconds: float = CHECK_S) -> None:
        self.name, self.seconds = name, seconds
        self._function = function
        self._run: _Run | None = None
        self._lock = threading.Lock()

    def start(self) -> _Run:
        """Start the check in the background, unless it is already running, and return its run."""
        with self._lock:
            if self._run is None or self._run.is_over.is_set():
                self._run = _Run()
                thread = threading.Thread(target=self._perform, args=(self._run,), daemon=True)
                thread.start()
            return self._run

    def _perform(self, run: _Run) -> None:
        try:
            with deadline.limited(self.seconds):
                self._function()
            run.has_passed = True
        except Exception as error:  # noqa: BLE001,RUF100  any error means that the service is not ready
            logger.warning("not_ready", check=self.name, kind=type(error).__name__)
        finally:
            release_connection()
            run.is_over.set()


def run_checks(checks: Iterable[Check]) -> list[str]:
    """Run the checks at the same time, and return the names of those that failed or did not finish in time."""
    began = time.monotonic()
    runs = [(check, check.start()) for check in checks]
    failed = []
    for check, run in runs:
        if not run.is_over.wait(max(0.0, began + check.seconds - time.monotonic())):
            logger.warning("not_ready", check=check.name, kind="hangs")
            failed.append(check.name)
        elif not run.has_passed:
            failed.append(check.name)
    return failed
