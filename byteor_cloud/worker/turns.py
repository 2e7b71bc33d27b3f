"""Turns of replays: a worker runs more replays than may compute at the same time, and pauses the others.

At most two replays compute at a time: one in the short place, one in the long place. The short place is only for short
replays, which have computed for less than ``SHORT_S``. The long place is for long replays; a short one gets a turn in
it only if no long one is waiting. A turn in the long place ends after ``QUANTUM_S``. A place goes to the replay whose
organization and person have both computed least, so that neither a person with several organizations nor an
organization with several people gets more than others.

On Linux, the process of a paused replay is stopped with SIGSTOP, so the replay loses no work and repeats none. On other
systems, a replay that has started is not paused.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Lock

from byteor_cloud.worker.jobs import Claim, JobLane

SHORT_S = 10.0
QUANTUM_S = 10.0


class Turn:
    """A replay that takes turns with others. Its clock runs only while it may compute."""

    def __init__(self, turns: Turns, claim: Claim, number: int) -> None:
        self.claim = claim
        self.number = number
        # Whether the job may be restarted. A stopping worker requeues such a job instead of waiting for the job's next
        # turn.
        self.is_repeatable = True
        self.computed_s = 0.0  # the seconds computed until ``Turns`` last charged the replays
        self.has_place = Event()
        self.pid: int | None = None
        self._turns = turns

    @property
    def is_long(self) -> bool:
        """Whether the replay has used up the time of a short replay."""
        return self.claim.lane is JobLane.LONG_REPLAYS or self.computed_s >= SHORT_S

    def wait(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` for the replay's turn. Returns whether it may compute now."""
        self._turns.assign()
        return self.has_place.wait(timeout_s)

    def clock(self) -> float:
        """Return the total seconds for which the replay has been allowed to compute."""
        self._turns.assign()
        return self.computed_s

    def attach(self, pid: int) -> None:
        """Start pausing this child process whenever it is not the replay's turn."""
        self._turns.set_process(self, pid)

    def detach(self) -> None:
        """No longer pause or resume the child process. Call this before waiting for the process to exit."""
        self._turns.set_process(self, None)


class _Queue:
    """The short replays or the long ones, and the cost in seconds of each organization and person."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._cost: dict[str, float] = {}
        self._level = 0.0  # the highest cost of an owner whose replay has computed

    def add(self, turn: Turn) -> None:
        """Add a replay.

        An owner without replays in this queue starts with at least the highest cost of the owners whose replays have
        computed, and therefore does not make up for times without replays.
        """
        present = {owner for each in self.turns for owner in each.claim.owners}
        self._cost = {
            owner: cost for owner, cost in self._cost.items() if owner in present or (present and cost > self._level)
        }
        for owner in turn.claim.owners:
            self._cost.setdefault(owner, self._level)
        self.turns.append(turn)

    def charge(self, turn: Turn, seconds: float) -> None:
        """Add the seconds to the cost of the replay's owners."""
        for owner in turn.claim.owners:
            self._cost[owner] += seconds
        self._level = max(self._level, self._rank(turn)[0])

    def first(self, *, but: Turn | None) -> Turn | None:
        """Return the next replay other than ``but``, or None if there is none."""
        return min((each for each in self.turns if each is not but), key=self._rank, default=None)

    def _rank(self, turn: Turn) -> tuple[float, float, float, int]:
        costs = [self._cost[owner] for owner in turn.claim.owners]
        return max(costs, default=0.0), sum(costs), turn.computed_s, turn.number


class Turns:
    """The turns of all replays in this process. Any thread that reads a replay's clock also assigns the places."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = Lock()
        self._numbers = count()
        self._short, self._long = _Queue(), _Queue()
        self._short_place: Turn | None = None
        self._long_place: Turn | None = None
        self._charged_until = self._long_until = now()

    @contextmanager
    def join(self, claim: Claim) -> Iterator[Turn]:
        """Let a replay take turns with the others until the block ends."""
        turn = Turn(self, claim, next(self._numbers))
        with self._lock:
            self._charge()
            claim.is_paused = True
            (self._long if turn.is_long else self._short).add(turn)
            self._assign()
        try:
            yield turn
        finally:
            with self._lock:
                self._charge()
                for queue in (self._short, self._long):
                    queue.turns = [each for each in queue.turns if each is not turn]
                claim.is_paused = False
                self._assign()

    def assign(self) -> None:
        """Assign the places to the replays that are next."""
        with self._lock:
            self._charge()
            self._assign()

    def set_process(self, turn: Turn, pid: int | None) -> None:
        """Set which child process is paused between the replay's turns, or None for none."""
        with self._lock:
            turn.pid = pid
            if pid is not None and not turn.has_place.is_set():
                os.kill(pid, signal.SIGSTOP)

    def _charge(self) -> None:
        """Charge the replays that have a place for the time since the previous call."""
        now = self._now()
        passed, self._charged_until = now - self._charged_until, now
        for queue in (self._short, self._long):
            for turn in queue.turns:
                if turn.has_place.is_set():
                    turn.computed_s += passed
                    queue.charge(turn, passed)

    def _assign(self) -> None:
        for turn in [each for each in self._short.turns if each.is_long]:
            self._short.turns.remove(turn)
            self._long.add(turn)
        everyone = [*self._short.turns, *self._long.turns]
        if self._short_place not in self._short.turns:
            self._short_place = None
        if self._long_place not in everyone or self._charged_until >= self._long_until:
            self._long_place = None
        self._short_place = self._short_place or self._short.first(but=self._long_place)
        if self._long_place is None:
            self._long_place = self._long.first(but=None) or self._short.first(but=self._short_place)
            self._long_until = self._charged_until + QUANTUM_S
        for turn in everyone:
            _set_place(turn, turn in (self._short_place, self._long_place))


def _set_place(turn: Turn, has_place: bool) -> None:
    if turn.has_place.is_set() == has_place:
        return
    turn.claim.is_paused = turn.is_repeatable and not has_place
    if turn.pid is not None:
        os.kill(turn.pid, signal.SIGCONT if has_place else signal.SIGSTOP)
    if has_place:
        turn.has_place.set()
    else:
        turn.has_place.clear()


TURNS = Turns()
