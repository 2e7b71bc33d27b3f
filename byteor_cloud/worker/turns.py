"""Turns of replays: a worker has more of them in hand than may compute at a time, and pauses the others.

Two may compute. One place is only for short replays: those that have not computed for ``SHORT_S`` yet. The other is for
long replays, and for short ones while no long one waits. In it a turn ends after ``QUANTUM_S``. A place goes to the
replay whose organization and person have both computed least, so that neither a person with several organizations nor
an organization with several people gets more than others.

A paused process is stopped with SIGSTOP. It loses nothing and repeats nothing.
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
    """One replay among those that take turns. Its time only passes while it may compute."""

    def __init__(self, turns: Turns, claim: Claim, number: int) -> None:
        self.claim = claim
        self.number = number
        # Whether the job may simply run again, so that a stopping worker need not wait for its next turn.
        self.is_repeatable = True
        self.computed_s = 0.0  # until the last decision about places
        self.has_place = Event()
        self.pid: int | None = None
        self._turns = turns

    @property
    def is_long(self) -> bool:
        """Whether the replay has used up what a short one may."""
        return self.claim.lane is JobLane.LONG_REPLAYS or self.computed_s >= SHORT_S

    def wait(self, timeout_s: float) -> bool:
        """Wait for the replay's turn. Returns whether it may compute now."""
        self._turns.assign()
        return self.has_place.wait(timeout_s)

    def clock(self) -> float:
        """Return for how many seconds the replay has been allowed to compute."""
        self._turns.assign()
        return self.computed_s

    def attach(self, pid: int) -> None:
        """Pause this child process, from now on, whenever it is not the replay's turn."""
        self._turns.set_process(self, pid)

    def detach(self) -> None:
        """Stop pausing the child process. Call this before the process is waited for."""
        self._turns.set_process(self, None)


class _Queue:
    """The short or the long replays, and the seconds that each organization and person has computed among them."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._cost: dict[str, float] = {}
        self._level = 0.0  # the most that a replay had cost its owners when it computed

    def add(self, turn: Turn) -> None:
        """Add a replay. Owners who had none here begin at the highest cost of those who have computed.

        So they wait for one turn of each of the others at most, and do not catch up on time in which they had nothing
        to compute.
        """
        present = {owner for each in self.turns for owner in each.claim.owners}
        self._cost = {
            owner: cost for owner, cost in self._cost.items() if owner in present or (present and cost > self._level)
        }
        for owner in turn.claim.owners:
            self._cost.setdefault(owner, self._level)
        self.turns.append(turn)

    def charge(self, turn: Turn, seconds: float) -> None:
        """Charge the seconds to the replay's owners."""
        for owner in turn.claim.owners:
            self._cost[owner] += seconds
        self._level = max(self._level, self._rank(turn)[0])

    def first(self, *, but: Turn | None) -> Turn | None:
        """Return the replay that is next, other than ``but``."""
        return min((each for each in self.turns if each is not but), key=self._rank, default=None)

    def _rank(self, turn: Turn) -> tuple[float, float, float, int]:
        costs = [self._cost[owner] for owner in turn.claim.owners]
        return max(costs, default=0.0), sum(costs), turn.computed_s, turn.number


class Turns:
    """The turns of all replays of this process. Any thread that asks for the time also decides who is next."""

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
        """Take turns with the other replays until the block ends."""
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
        """Give the places to the replays that are next."""
        with self._lock:
            self._charge()
            self._assign()

    def set_process(self, turn: Turn, pid: int | None) -> None:
        """Set the child process that must be paused between the turns."""
        with self._lock:
            turn.pid = pid
            if pid is not None and not turn.has_place.is_set():
                os.kill(pid, signal.SIGSTOP)

    def _charge(self) -> None:
        """Charge the time since the last decision to the replays that had a place."""
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
