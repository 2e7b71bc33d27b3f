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
_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
CAPACITY = 4096 if _files == resource.RLIM_INFINITY else min(4096, _files // 2)
# After a burst of at least LARGE_BURST woken polls, the connections of the agents that get an offer rest before their
# next requests are read. Otherwise, the first agents with an offer would report their progress while others wait for
# the offer, and a report takes much longer. All rest while the others get their offers (at TOLD_PER_S, within at most
# TOLD_WITHIN_S seconds), and then start again at RESUMED_PER_S, within at most RESUMED_WITHIN_S seconds. Both rates are
# those of this host's API processes together.
# Polls of an environment that are woken within BURST_S of each other, such as by the steps of one rollout, are one
# burst. A burst in one environment does not make the agents of another one rest.
LARGE_BURST, BURST_S = 20, 2.0
TOLD_PER_S, TOLD_WITHIN_S = 3000.0, 6.0
RESUMED_PER_S, RESUMED_WITHIN_S = 500.0, 15.0
MOST_BURSTS = 1000  # with more bursts in memory than this, those that are over are removed
_LOOKED_EVERY_S = 1.0  # how often a resting connection checks whether the burst has grown or the process shuts down


class StopReason(Enum):
    """Why a poll stopped waiting."""

    CHANGED = auto()
    TIMED_OUT = auto()
    REPLACED = auto()
    DRAINED = auto()
    FULL = auto()


class Waiter:
    """A waiting poll. It blocks on the lock until it is stopped or times out."""

    def __init__(self, agent_id: UUID, environment_id: UUID | None) -> None:
        self.agent_id = agent_id
        self.environment_id = environment_id
        self.reason = StopReason.TIMED_OUT
        self.burst: Burst | None = None  # the burst in which the poll was woken
        self.stopped = threading.Lock()
        self.stopped.acquire()

    def stop(self, reason: StopReason) -> None:
        """Make the poll stop waiting. Call this only once."""
        self.reason = reason
        self.stopped.release()


class Burst:
    """Polls of one environment that were woken in quick succession.

    ``processes`` is the number of API processes on this host. Each is assumed to have woken as many polls as this one.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._began_at = self._latest_at = time.monotonic()
        self._count = 0

    def add_one(self) -> None:
        """Count another woken poll."""
        self._count += 1
        self._latest_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether polls that are woken now belong to another burst."""
        return time.monotonic() >= self._latest_at + BURST_S

    def resumes_at(self, share: float) -> float:
        """Return the monotonic time at which a connection resumes. ``share`` is its place in the order, from 0 to 1."""
        if self._count < LARGE_BURST:
            return self._began_at
        everywhere = self._count * self._processes
        told_s = min(TOLD_WITHIN_S, everywhere / TOLD_PER_S)
        return self._began_at + told_s + share * min(RESUMED_WITHIN_S, everywhere / RESUMED_PER_S)


class WaitingRoom:
    """The waiting polls of this process: at most one for each agent, and at most ``capacity`` in total.

    ``processes`` is the number of API processes on this host, which share the polls.
    """

    def __init__(self, capacity: int = CAPACITY, *, processes: int = 1) -> None:
        self.capacity = capacity
        self._processes = processes
        self._waiters: dict[UUID, Waiter] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._bursts: dict[UUID | None, Burst] = {}  # the latest burst of each environment

    def enter(self, agent_id: UUID, environment_id: UUID | None = None) -> Waiter:
        """Register a poll and stop an earlier poll of the agent. Returns a stopped poll if it must not wait."""
        waiter = Waiter(agent_id, environment_id)
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
            if len(self._bursts) > MOST_BURSTS:
                self._bursts = {key: burst for key, burst in self._bursts.items() if not burst.is_over}
            for waiter in woken:
                burst = self._bursts.get(waiter.environment_id)
                if burst is None or burst.is_over:
                    burst = self._bursts[waiter.environment_id] = Burst(self._processes)
                burst.add_one()
                waiter.burst = burst
        for waiter in woken:
            waiter.stop(StopReason.CHANGED)

    def rest(self, burst: Burst) -> None:
        """Wait until a connection whose poll was woken in the burst may resume, or the process shuts down."""
        share = random.random()  # noqa: S311  this only spreads load
        while not self._is_closed and (left_s := burst.resumes_at(share) - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOKED_EVERY_S))

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
