"""Polls that wait for a change. A waiting poll is a greenlet on a lock: no database connection, no request slot."""

from __future__ import annotations

import random
import resource
import threading
import time
from collections.abc import Iterable
from enum import Enum, auto
from uuid import UUID

# A waiting poll holds a client's connection, and each connection a file. Half of the files remain for others.
CAPACITY = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
# Polls that one change wakes are answered at this rate, but within SPREAD_S.
WOKEN_PER_S, SPREAD_S = 2000.0, 0.5


class StopReason(Enum):
    """Why a poll stopped waiting."""

    CHANGED = auto()
    TIMED_OUT = auto()
    REPLACED = auto()
    DRAINED = auto()
    FULL = auto()


class Waiter:
    """A poll that waits: it blocks on the lock until somebody has set the reason."""

    def __init__(self, agent_id: UUID) -> None:
        self.agent_id = agent_id
        self.reason = StopReason.TIMED_OUT
        self.delay_s = 0.0
        self.turn = threading.Lock()
        self.turn.acquire()

    def end(self, reason: StopReason, delay_s: float = 0.0) -> None:
        """End the waiting. Call this once."""
        self.reason, self.delay_s = reason, delay_s
        self.turn.release()


class WaitingRoom:
    """The polls of this process that wait, at most one for each agent and ``capacity`` in total."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._waiters: dict[UUID, Waiter] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._quiet_at = 0.0  # when all polls that were woken before are answered

    def enter(self, agent_id: UUID) -> Waiter:
        """Register a poll. An earlier poll of the same agent ends. If the poll must not wait, it has ended already."""
        waiter = Waiter(agent_id)
        with self._lock:
            earlier = self._waiters.pop(agent_id, None)
            if earlier is not None:
                earlier.end(StopReason.REPLACED)
            if self._is_closed or len(self._waiters) >= self.capacity:
                waiter.end(StopReason.DRAINED if self._is_closed else StopReason.FULL)
            else:
                self._waiters[agent_id] = waiter
        return waiter

    def wait(self, waiter: Waiter, seconds: float) -> StopReason:
        """Wait until the poll ends, at most for ``seconds``, and return why it did."""
        if waiter.turn.acquire(timeout=max(0.0, seconds)) and waiter.delay_s:
            time.sleep(waiter.delay_s)
        return waiter.reason

    def leave(self, waiter: Waiter) -> None:
        """Remove the poll unless it has ended already."""
        with self._lock:
            if self._waiters.get(waiter.agent_id) is waiter:
                del self._waiters[waiter.agent_id]

    def wake(self, agent_ids: Iterable[UUID] | None) -> None:
        """End the waiting of these agents' polls, or of all, spread over a moment if they are many.

        A change to many agents comes as many notifications at once, so polls that were woken just before count too.
        """
        with self._lock:
            chosen = list(self._waiters) if agent_ids is None else agent_ids
            woken = [waiter for agent_id in chosen if (waiter := self._waiters.pop(agent_id, None)) is not None]
            now = time.monotonic()
            spread_s = min(SPREAD_S, max(0.0, self._quiet_at - now) + len(woken) / WOKEN_PER_S)
            self._quiet_at = now + spread_s
        for waiter in woken:
            waiter.end(StopReason.CHANGED, random.uniform(0.0, spread_s))  # noqa: S311  it spreads load

    def close(self) -> None:
        """End the waiting of all polls, since the process ends, and let no other poll wait."""
        with self._lock:
            self._is_closed = True
            woken = list(self._waiters.values())
            self._waiters.clear()
        for waiter in woken:
            waiter.end(StopReason.DRAINED)

    def open(self) -> None:
        """Let polls wait again."""
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._waiters)
