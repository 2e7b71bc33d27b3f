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

    _result: T

    def __init__(self, compute: Callable[[], T], *, for_s: float = 1.0) -> None:
        self._compute, self._for_s = compute, for_s
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._until = float("-inf")

    def get(self) -> T:
        """Return the result, or raise the error, of a call that ended at most ``for_s`` seconds ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._call()
                self._until = time.monotonic() + self._for_s
            error = self._error
            if error is None:
                return self._result
        # Otherwise each caller would add its own frames to the one traceback.
        raise error.with_traceback(None)

    def forget(self) -> None:
        """Make the next caller call the function again."""
        with self._lock:
            self._until = float("-inf")

    def _call(self) -> None:
        try:
            self._result, self._error = self._compute(), None
        except Exception as error:  # noqa: BLE001,RUF100  each caller gets it
            self._error = error
