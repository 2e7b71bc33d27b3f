"""Sharing the result of a costly function among concurrent callers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Shared[T]:
    """The result of a costly function, shared by any number of callers.

    One caller calls the function, and the others wait for the same result, which is kept for ``for_s`` seconds. Errors
    are shared as well, so that callers do not try one after the other when a dependency fails.
    """

    _result: T

    def __init__(self, compute: Callable[[], T], *, for_s: float = 1.0) -> None:
        self._compute, self._for_s = compute, for_s
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._until = float("-inf")

    def get(self) -> T:
        """Return the result, or raise the error, of a call that finished at most ``for_s`` seconds ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._call()
                self._until = time.monotonic() + self._for_s
            error = self._error
            if error is None:
                return self._result
        # Each caller gets the error without a traceback, because callers would add their frames to a shared traceback.
        raise error.with_traceback(None)

    def discard(self) -> None:
        """Discard the result, so that the next caller calls the function again."""
        with self._lock:
            self._until = float("-inf")

    def _call(self) -> None:
        try:
            self._result, self._error = self._compute(), None
        except Exception as error:  # noqa: BLE001,RUF100  each caller gets the error
            self._error = error
