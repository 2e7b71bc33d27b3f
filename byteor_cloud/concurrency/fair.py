"""Slots that organizations share fairly: a free slot usually goes to the waiting one with the fewest slots."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import NamedTuple

from byteor_cloud.errors import Unavailable


class Holder(NamedTuple):
    """Whom a slot counts for: an organization, its people, keys or agents (``group``), and the caller."""

    organization: str
    group: str
    caller: str


class _Waiter:
    """A thread or greenlet that waits for a slot. It waits by blocking on the lock ``turn``."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.has_slot = False
        self.turn = threading.Lock()
        self.turn.acquire()


class FairSlots:
    """A number of slots, for which requests take turns by organization, then by group, then by caller.

    ``take`` gives an organization no further slot while it holds half of them (rounded down, but at least one) or
    more. ``move`` has no such limit.

    A caller that acts in many organizations counts in each of them with all of its slots, so that belonging to more
    organizations does not yield more slots. Among holders with equally many slots, the one that was served longest ago
    is next. The requests of one holder are served in order of arrival, except with ``is_first``.
    """

    def __init__(self, count: int, *, waiting: int) -> None:
        self._free = count
        self._max_held = max(1, count // 2)  # with this many, ``take`` gives an organization no further one
        self._max_waiting = waiting
        self._held: Counter[str | tuple[str, ...]] = Counter()
        self._queues: dict[Holder, deque[_Waiter]] = {}
        self._waiting: Counter[str] = Counter()  # the number of waiting requests by organization
        # The number of the latest turn of each recently served organization, group and caller.
        self._served: dict[str | tuple[str, ...], int] = {}
        self._turn = 0
        self._lock = threading.Lock()

    def take(self, holder: Holder, *, timeout_s: float, is_first: bool = False) -> None:
        """Take a slot, or wait for one. With ``is_first``, wait ahead of the holder's other requests.

        Raises Unavailable after ``timeout_s`` seconds, or earlier if too many requests are waiting and this one is
        refused (``_refuse_newest``).
        """
        with self._lock:
            if self._free > 0 and self._may_get(holder):
                self._give(holder)
                return
            waiter = _Waiter(holder)
            self._enter(waiter, is_first=is_first)
            if self._waiting.total() > self._max_waiting:
                self._refuse_newest()
        try:
            waiter.turn.acquire(timeout=max(0.0, timeout_s))
        except BaseException:  # the greenlet was killed
            with self._lock:
                self._leave(waiter)
                if waiter.has_slot:
                    self._free_slot(holder)
            raise
        with self._lock:
            if waiter.has_slot:
                return
            self._leave(waiter)
        raise Unavailable("Too many requests are in progress. Try again later.", retry_after=5)

    def give_back(self, holder: Holder) -> None:
        """Free a slot that counts for ``holder``. The next waiting request that may have a slot gets it."""
        with self._lock:
            self._free_slot(holder)

    def move(self, old: Holder, new: Holder) -> None:
        """Count a slot for ``new`` that counted for ``old``."""
        with self._lock:
            self._uncount(old)
            self._held.update(_names(new))
            self._serve_next()

    def _free_slot(self, holder: Holder) -> None:
        self._uncount(holder)
        self._free += 1
        self._serve_next()

    def _serve_next(self) -> None:
        eligible = [holder for holder in self._queues if self._may_get(holder)]
        if self._free > 0 and eligible:
            waiter = self._queues[min(eligible, key=self._rank)][0]
            self._leave(waiter)
            self._give(waiter.holder)
            waiter.has_slot = True
            waiter.turn.release()

    def _may_get(self, holder: Holder) -> bool:
        return self._held[holder.organization] < self._max_held

    def _uncount(self, holder: Holder) -> None:
        self._held.subtract(_names(holder))
        for name in _names(holder):
            if not self._held[name]:
                del self._held[name]

    def _rank(self, holder: Holder) -> tuple[int, ...]:
        """Return the sort key of waiting holders. The lowest is served next."""
        organization, group, caller = _names(holder)
        return (
            max(self._held[organization], self._held[caller]),
            max(self._served.get(organization, 0), self._served.get(caller, 0)),
            self._held[group],
            self._served.get(group, 0),
            self._held[caller],
            self._served.get(caller, 0),
        )

    def _give(self, holder: Holder) -> None:
        self._free -= 1
        self._turn += 1
        self._held.update(_names(holder))
        for name in _names(holder):
            self._served.pop(name, None)
            self._served[name] = self._turn
        while len(self._served) > _MAX_SERVED:  # holders that were served this long ago count as never served
            del self._served[next(iter(self._served))]

    def _enter(self, waiter: _Waiter, *, is_first: bool) -> None:
        queue = self._queues.setdefault(waiter.holder, deque())
        queue.appendleft(waiter) if is_first else queue.append(waiter)
        self._waiting[waiter.holder.organization] += 1

    def _leave(self, waiter: _Waiter) -> None:
        """Remove a waiter from its queue. Do nothing if it was already removed, because it was served or refused."""
        queue = self._queues.get(waiter.holder, deque())
        if waiter not in queue:
            return
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.holder]
        self._waiting[waiter.holder.organization] -= 1
        if not self._waiting[waiter.holder.organization]:
            del self._waiting[waiter.holder.organization]

    def _refuse_newest(self) -> None:
        """Refuse the last request in the longest queue of the organization with the most waiting requests."""
        organization, _ = self._waiting.most_common(1)[0]
        queues = [queue for holder, queue in self._queues.items() if holder.organization == organization]
        waiter = max(queues, key=len)[-1]
        self._leave(waiter)
        waiter.turn.release()


_MAX_SERVED = 10_000


def _names(holder: Holder) -> tuple[str, tuple[str, str], tuple[str]]:
    """Return the keys under which a holder's organization, group and caller are counted."""
    return holder.organization, (holder.organization, holder.group), (holder.caller,)
