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
# The responses to woken polls are sent at this rate, or faster if that would take longer than SPREAD_S seconds.
import os
WOKEN_PER_S, SPREAD_S = 2000.0, float(os.environ.get("SPREAD", "0.5"))


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
        self.delay_s = 0.0
        self.stopped = threading.Lock()
        self.stopped.acquire()

    def stop(self, reason: StopReason, delay_s: float = 0.0) -> None:
        """Make the poll stop waiting. Call this only once."""
        self.reason, self.delay_s = reason, delay_s
        self.stopped.release()


class WaitingRoom:
    """The waiting polls of this process: at most one for each agent, and at most ``capacity`` in total."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._waiters: dict[UUID, Waiter] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._quiet_at = 0.0  # the monotonic time when the last response to a woken poll is due

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
        """Wait until the poll is stopped, for at most ``seconds``. Return the reason.

        If the poll was stopped with a delay, also wait for the delay.
        """
        if waiter.stopped.acquire(timeout=max(0.0, seconds)) and waiter.delay_s:
            time.sleep(waiter.delay_s)
        return waiter.reason

    def leave(self, waiter: Waiter) -> None:
        """Remove the poll unless it has been stopped."""
        with self._lock:
            if self._waiters.get(waiter.agent_id) is waiter:
                del self._waiters[waiter.agent_id]

    def wake(self, agent_ids: Iterable[UUID] | None) -> None:
        """Wake the polls of these agents, or of all agents if None.

        Their responses are spread over at most ``SPREAD_S`` seconds. A change to many agents causes several
        notifications in quick succession, so the spread is longer while responses to earlier notifications are due.
        """
        with self._lock:
            chosen = list(self._waiters) if agent_ids is None else agent_ids
            woken = [waiter for agent_id in chosen if (waiter := self._waiters.pop(agent_id, None)) is not None]
            now = time.monotonic()
            spread_s = min(SPREAD_S, max(0.0, self._quiet_at - now) + len(woken) / WOKEN_PER_S)
            self._quiet_at = now + spread_s
        for waiter in woken:
            waiter.stop(StopReason.CHANGED, random.uniform(0.0, spread_s))  # noqa: S311  this only spreads load

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
