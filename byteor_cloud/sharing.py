"""Work that callers share if they ask for its result at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Shared[T]:
    """The result of a function that is costly to call, for any number of callers.

    One caller calls the function, and the others wait for the same result. It is kept for ``for_s`` seconds. An error
    is shared in the same way: when a dependency fails, the callers must not try one after the other.
    """

    def __init__(self, compute: Callable[[], T], *, for_s: float = 1.0) -> None:
        self._compute, self._for_s = compute, for_s
        self._lock = threading.Lock()
        self._kept: Callable[[], T] | None = None
        self._until = float("-inf")

    def get(self) -> T:
        """Return the result, or raise the error, of a call that is at most ``for_s`` seconds old."""
        with self._lock:
            if self._kept is None or time.monotonic() >= self._until:
                self._kept = self._call()
                self._until = time.monotonic() + self._for_s
            kept = self._kept
        return kept()

    def forget(self) -> None:
        """Make the next caller call the function again."""
        with self._lock:
            self._kept = None

    def _call(self) -> Callable[[], T]:
        try:
            result = self._compute()
        except Exception as error:  # noqa: BLE001,RUF100  each caller gets it
            return _raises(error)
        return lambda: result


def _raises[T](error: Exception) -> Callable[[], T]:
    def fail() -> T:
        # Otherwise each caller would add its own frames to the one traceback.
        raise error.with_traceback(None)

    return fail
