"""Polls that wait for a new offer. A waiting poll is a greenlet that blocks on a lock and needs no database."""

from __future__ import annotations

import random
import resource
import threading
import time
from collections.abc import Iterable
from enum import Enum, auto
from uuid import UUID

# Each waiting poll occupies a connection, and so an open file. At least half of the file limit is left for other uses.
CAPACITY = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
# After a burst of at least LARGE_BURST woken polls, the connections of these agents rest before their next requests are
# read. Otherwise, the first agents with an offer would report their progress while others wait for the offer, and a
# report takes ten times as long. All rest for the time in which the others get their offers, and then start again at
# RESUMED_PER_S, over at most RESUMED_WITHIN_S seconds. Bursts that follow within BURST_S, such as those of the steps of
# one rollout, count together.
LARGE_BURST, BURST_S = 100, 2.0
TOLD_PER_S, TOLD_WITHIN_S = 1000.0, 2.0
RESUMED_PER_S, RESUMED_WITHIN_S = 250.0, 10.0


class StopReason(Enum):
    """Why a poll stopped waiting."""

    CHANGED = auto()
    TIMED_OUT = auto()
    REPLACED = auto()
    DRAINED = auto()
    FULL = auto()


class Waiter:
    """A waiting poll. It blocks on the lock until it is stopped or times out."""

    def __init__(self, agent_id: UUID) -> None:
        self.agent_id = agent_id
        self.reason = StopReason.TIMED_OUT
        self.rest_s = 0.0
        self.stopped = threading.Lock()
        self.stopped.acquire()

    def stop(self, reason: StopReason, rest_s: float = 0.0) -> None:
        """Make the poll stop waiting. Call this only once. ``rest_s`` is how long its connection should rest then."""
        self.reason, self.rest_s = reason, rest_s
        self.stopped.release()


class WaitingRoom:
    """The waiting polls of this process: at most one for each agent, and at most ``capacity`` in total."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._waiters: dict[UUID, Waiter] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._burst, self._burst_at = 0, 0.0  # the number of polls woken in the current burst, and its latest time

    def enter(self, agent_id: UUID) -> Waiter:
        """Register a poll and stop an earlier poll of the agent. Returns a stopped poll if it must not wait."""
        waiter = Waiter(agent_id)
        with self._lock:
            earlier = self._waiters.pop(agent_id, None)
            if earlier is not None:
                earlier.stop(StopReason.REPLACED)
            if self._is_closed or len(self._waiters) >= self.capacity:
                waiter.stop(StopReason.DRAINED if self._is_closed else StopReason.FULL)
            else:
                self._waiters[agent_id] = waiter
        return waiter

    def wait(self, waiter: Waiter, seconds: float) -> StopReason:
        """Wait until the poll is stopped, for at most ``seconds``. Return the reason."""
        waiter.stopped.acquire(timeout=max(0.0, seconds))
        return waiter.reason

    def leave(self, waiter: Waiter) -> None:
        """Remove the poll unless it has been stopped."""
        with self._lock:
            if self._waiters.get(waiter.agent_id) is waiter:
                del self._waiters[waiter.agent_id]

    def wake(self, agent_ids: Iterable[UUID] | None) -> None:
        """Wake the polls of these agents, or of all agents if None."""
        with self._lock:
            chosen = list(self._waiters) if agent_ids is None else agent_ids
            woken = [waiter for agent_id in chosen if (waiter := self._waiters.pop(agent_id, None)) is not None]
            now = time.monotonic()
            self._burst = len(woken) + (self._burst if now < self._burst_at + BURST_S else 0)
            self._burst_at = now
            least_s = most_s = 0.0
            if self._burst >= LARGE_BURST:
                least_s = min(TOLD_WITHIN_S, self._burst / TOLD_PER_S)
                most_s = least_s + min(RESUMED_WITHIN_S, self._burst / RESUMED_PER_S)
        for waiter in woken:
            waiter.stop(StopReason.CHANGED, random.uniform(least_s, most_s))  # noqa: S311  this only spreads load

    def close(self) -> None:
        """Stop all polls and let no further poll wait, because the process is shutting down."""
        with self._lock:
            self._is_closed = True
            woken = list(self._waiters.values())
            self._waiters.clear()
        for waiter in woken:
            waiter.stop(StopReason.DRAINED)

    def open(self) -> None:
        """Permit polls to wait again after ``close``."""
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._waiters)
