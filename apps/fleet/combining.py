"""Flat combining: callers that wait at the same time share one database statement and one commit."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence


class _Waiting[Item, Result]:
    """An item that was submitted, and its result once there is one."""

    def __init__(self, key: Hashable, item: Item) -> None:
        self.key, self.item = key, item
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None
        # The submitter blocks on this lock until its result is there or it becomes the leader.
        self.turn = threading.Lock()
        self.turn.acquire()


class Combiner[Item, Result]:
    """Collects items that threads or greenlets submit concurrently, and calls ``work`` on batches of them.

    There is no background thread. One caller is the leader: it calls ``work`` for all items that wait, on its own
    database connection, and then makes the first caller that came in the meantime the leader. A caller that is alone
    handles its own item.

    A batch of ten costs little more than a batch of one. So while batches have several items, a leader lets others join
    for ``linger_s`` first. A lone caller never waits.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | None]],
        *,
        limit: int = 500,
        linger_s: float = 0.0,
    ) -> None:
        self._work, self._limit, self._linger_s = work, limit, linger_s
        self._was_shared = False
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._lock = threading.Lock()
        self._is_led = False

    def submit(self, key: Hashable, item: Item) -> Result | None:
        """Return the item's result, or raise the error of its batch. A batch has at most one item with the same key."""
        waiting: _Waiting[Item, Result] = _Waiting(key, item)
        with self._lock:
            self._queue.append(waiting)
            leads, self._is_led = not self._is_led, True
        if not leads:
            waiting.turn.acquire()
        if not waiting.done:
            try:
                if self._linger_s and self._was_shared:
                    time.sleep(self._linger_s)
                while not waiting.done:
                    self._run(self._take(), leader=waiting)
            finally:
                self._hand_over()
        if waiting.error is not None:
            raise waiting.error
        return waiting.result

    def _hand_over(self) -> None:
        with self._lock:
            self._is_led = bool(self._queue)
            if self._is_led:
                self._queue[0].turn.release()

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch: dict[Hashable, _Waiting[Item, Result]] = {}
        while self._queue and len(batch) < self._limit and self._queue[0].key not in batch:
            first = self._queue.popleft()
            batch[first.key] = first
        self._was_shared = len(batch) > 1
        return list(batch.values())

    def _run(self, batch: list[_Waiting[Item, Result]], *, leader: _Waiting[Item, Result]) -> None:
        results: Sequence[Result | None] = [None] * len(batch)
        error: BaseException | None = None
        try:
            results = self._work([waiting.item for waiting in batch])
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            for waiting, result in zip(batch, results, strict=True):
                waiting.result, waiting.error, waiting.done = result, error, True
                if waiting is not leader:
                    waiting.turn.release()
