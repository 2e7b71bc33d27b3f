"""Slots that organizations share fairly: a free slot goes to whoever holds the fewest, not to who asks the most."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import NamedTuple

from byteor_cloud.errors import Unavailable


class Holder(NamedTuple):
    """Who a slot counts for: an organization, the people or the keys in it, and the caller."""

    organization: str
    group: str
    caller: str


class _Waiter:
    """A thread or greenlet that waits for a slot: it blocks on the lock until it gets one or is refused."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.has_slot = False
        self.turn = threading.Lock()
        self.turn.acquire()


class FairSlots:
    """A number of slots. Those who wait for one take turns by organization, then by group, then by caller.

    An organization holds at most half of them.

    A caller who acts in many organizations counts in each of them with all the slots that they hold, so that further
    organizations get them no further slots. Among equals, whoever was served longest ago is next. The requests of one
    caller are served in order of arrival.
    """

    def __init__(self, count: int, *, waiting: int) -> None:
        self._free = count
        self._most_held = max(1, count // 2)  # by one organization, so that a slot is soon free for another
        self._most_waiting = waiting
        self._held: Counter[str | tuple[str, ...]] = Counter()
        self._queues: dict[Holder, deque[_Waiter]] = {}
        self._waiting: Counter[str] = Counter()  # by organization
        # The number of the latest turn of each organization, group and caller that may get another one soon.
        self._served: dict[str | tuple[str, ...], int] = {}
        self._turn = 0
        self._lock = threading.Lock()

    def take(self, holder: Holder, *, timeout_s: float, is_first: bool = False) -> None:
        """Take a slot, or wait for one. With ``is_first``, go before the caller's other requests.

        Raises Unavailable after ``timeout_s`` seconds, or when too many wait and most of them belong to this
        organization.
        """
        with self._lock:
            if self._free > 0 and self._may_get(holder):
                self._give(holder)
                return
            waiter = _Waiter(holder)
            self._enter(waiter, is_first=is_first)
            if self._waiting.total() > self._most_waiting:
                self._refuse_newest()
        try:
            waiter.turn.acquire(timeout=max(0.0, timeout_s))
        except BaseException:  # the greenlet ends
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
        """Free a slot that counts for ``holder``. The next one who waits gets it."""
        with self._lock:
            self._free_slot(holder)

    def move(self, old: Holder, new: Holder) -> None:
        """Count a slot that is held by ``old`` for ``new`` from now on."""
        with self._lock:
            self._forget(old)
            self._held.update(_names(new))
            self._serve_next()

    def _free_slot(self, holder: Holder) -> None:
        self._forget(holder)
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
        return self._held[holder.organization] < self._most_held

    def _forget(self, holder: Holder) -> None:
        self._held.subtract(_names(holder))
        for name in _names(holder):
            if not self._held[name]:
                del self._held[name]

    def _rank(self, holder: Holder) -> tuple[int, ...]:
        """Return what decides who is next; the lowest wins."""
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
        while len(self._served) > _REMEMBERED:  # whoever was served this long ago counts as never served
            del self._served[next(iter(self._served))]

    def _enter(self, waiter: _Waiter, *, is_first: bool) -> None:
        queue = self._queues.setdefault(waiter.holder, deque())
        queue.appendleft(waiter) if is_first else queue.append(waiter)
        self._waiting[waiter.holder.organization] += 1

    def _leave(self, waiter: _Waiter) -> None:
        """Remove a waiter from its queue, unless it was removed when it was refused."""
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
        """Refuse the newest request of the caller who has the most waiting, in the organization with the most."""
        organization, _ = self._waiting.most_common(1)[0]
        queues = [queue for holder, queue in self._queues.items() if holder.organization == organization]
        waiter = max(queues, key=len)[-1]
        self._leave(waiter)
        waiter.turn.release()


_REMEMBERED = 10_000


def _names(holder: Holder) -> tuple[str, tuple[str, str], tuple[str]]:
    """Return the different names under which a holder's organization, group and caller are counted."""
    return holder.organization, (holder.organization, holder.group), (holder.caller,)
