"""Group commit: requests that wait at the same time share one statement and one commit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence


class _Waiting[Item, Result]:
    def __init__(self, key: Hashable, item: Item) -> None:
        self.key, self.item = key, item
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None


class Combiner[Item, Result]:
    """Runs ``work`` on batches of what several threads hand in at once.

    There is no thread of its own: whoever holds the lock works for all who queue behind it (flat combining), on its
    own database connection, and the others find their results ready. Alone, a caller just does its own work.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result | None]], *, limit: int = 500) -> None:
        self._work, self._limit = work, limit
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._lock = threading.Lock()

    def submit(self, key: Hashable, item: Item) -> Result | None:
        """The result of this item; what ``work`` raised for its batch is raised here. One item of a key a batch."""
        waiting: _Waiting[Item, Result] = _Waiting(key, item)
        self._queue.append(waiting)
        with self._lock:
            while not waiting.done:
                self._run(self._take())
        if waiting.error is not None:
            raise waiting.error
        return waiting.result

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch: dict[Hashable, _Waiting[Item, Result]] = {}
        while self._queue and len(batch) < self._limit and self._queue[0].key not in batch:
            first = self._queue.popleft()
            batch[first.key] = first
        return list(batch.values())

    def _run(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            results = self._work([waiting.item for waiting in batch])
        except BaseException as error:
            for waiting in batch:
                waiting.error, waiting.done = error, True
            if not isinstance(error, Exception):
                raise
            return
        for waiting, result in zip(batch, results, strict=True):
            waiting.result, waiting.done = result, True
