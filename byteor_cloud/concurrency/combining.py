"""Flat combining: the database work for callers that wait at the same time is done in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from byteor_cloud.concurrency import deadline
from byteor_cloud.errors import unresponsive_database_error


class _Waiting[Item, Result]:
    """An item that was submitted, and later its result or error."""

    def __init__(self, key: Hashable, item: Item) -> None:
        self.key, self.item = key, item
        self.done = False
        self.result: Result | None = None
        self.error: BaseException | None = None
        # The submitter blocks on this lock until the item is done or the submitter becomes the leader.
        self.turn = threading.Lock()
        self.turn.acquire()


class Combiner[Item, Result]:
    """Collects items that threads or greenlets submit concurrently, and calls ``work`` on batches of them.

    There is no background thread. One caller is the leader: it calls ``work`` with a batch of waiting items, and then
    makes the first caller that is still waiting the leader. A caller that finds no leader becomes the leader.

    Before it collects a batch, the leader lets ready greenlets run, whose items can then join the batch. This makes
    batches larger, while a second concurrent leader would make them smaller. ``docs/scale.md`` has the measured
    processor times.

    A batch fails at its leader's deadline. All waiting callers then fail as well: they need the same database, and
    trying one batch after the other would keep them waiting far beyond their own deadlines.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result | None]], *, limit: int = 500) -> None:
        self._work, self._limit = work, limit
        self._has_leader = False
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._lock = threading.Lock()

    def submit(self, key: Hashable, item: Item) -> Result | None:
        """Return the item's result. Raises the error of the item's batch, or Unavailable if an earlier batch timed out.

        Items with the same key are never in the same batch.
        """
        waiting: _Waiting[Item, Result] = _Waiting(key, item)
        with self._lock:
            leads = not self._has_leader
            if leads:
                self._has_leader = True
            else:
                self._queue.append(waiting)
        if not leads:
            with deadline.waiting():
                waiting.turn.acquire()
        if not waiting.done:
            try:
                time.sleep(0)
                deadline.ensure_least()
                self._run(self._take(waiting), leader=waiting)
            finally:
                self._hand_over()
        if waiting.error is not None:
            raise waiting.error
        return waiting.result

    def _hand_over(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().turn.release()
            else:
                self._has_leader = False

    def _take(self, leader: _Waiting[Item, Result]) -> list[_Waiting[Item, Result]]:
        batch: dict[Hashable, _Waiting[Item, Result]] = {leader.key: leader}
        with self._lock:
            while self._queue and len(batch) < self._limit and self._queue[0].key not in batch:
                first = self._queue.popleft()
                batch[first.key] = first
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
            if error is not None and deadline.is_over():
                self._refuse_all()

    def _refuse_all(self) -> None:
        with self._lock:
            while self._queue:
                waiting = self._queue.popleft()
                waiting.error, waiting.done = unresponsive_database_error(), True
                waiting.turn.release()
