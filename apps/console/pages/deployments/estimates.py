"""The progress of a rollout or a rollback, and the time left at the current rate. Uses no database and no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.console.pages.deployments.waves import CountsByWave, pause_end
from byteor.engine.machines import FINISHED, AgentProgress
from byteor.engine.rollout import Hold, Strategy

# The events of timeline entries that start, stop and restart the clock with which the rate is measured.
STARTS = frozenset({"offer", "wave_started", "roll_back"})
STOPS = frozenset({"pause", "fail", "abort"})
RESTARTS = frozenset({"resume", "retry"})

_NEEDS = {Hold.MANUAL: "a manual start", Hold.APPROVAL: "approval"}
_STALLED_AFTER, _STALLED_FACTOR = timedelta(minutes=1), 3


@dataclass(frozen=True, slots=True)
class Pace:
    """The number of agents that finished in ``time``, which excludes times when the deployment was paused or failed."""

    finished: int
    time: timedelta

    @property
    def per_agent(self) -> timedelta:
        """The average time between two agents that finish. ``finished`` must not be 0."""
        return self.time / self.finished

    def is_stalled(self, quiet: timedelta) -> bool:
        """Return whether the pace is outdated, because no agent has reported for ``quiet``, a part of ``time``.

        The limit is three times the average time between two agents before that, but at least a minute.
        """
        return quiet > max(_STALLED_AFTER, _STALLED_FACTOR * (self.time - quiet) / self.finished)


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """The time until the rollout or rollback is done or, if a later wave has a hold, until that wave waits.

    ``held_wave`` is that wave, counted from 0.
    """

    time: timedelta
    held_wave: int | None = None
    hold: Hold | None = None


def percent_done(counts: CountsByWave, finished: Sequence[str] = FINISHED) -> int | None:
    """Return the percentage of the agents that have finished, rounded down; None without agents."""
    total = sum(counts.values())
    return 100 * _count(counts, finished) // total if total else None


def measure_time(entries: Sequence[tuple[str, datetime]], now: datetime) -> timedelta | None:
    """Return the time since the wave or the rollback began; None if the beginning is not known.

    Times when the deployment was paused or had failed do not count.

    ``entries`` are events of the timeline and their times, the newest first.
    """
    since = next((number for number, (event, _) in enumerate(entries) if event in STARTS), None)
    if since is None:
        return None
    total, running_since = timedelta(), None
    for event, at in reversed(entries[: since + 1]):
        if event in STOPS and running_since is not None:
            total, running_since = total + (at - running_since), None
        elif event in STARTS | RESTARTS and running_since is None:
            running_since = at
    return total if running_since is None else total + max(now - running_since, timedelta())


def estimate_rollout(
    strategy: Strategy, counts: CountsByWave, pace: Pace, *, wave: int, wave_done_at: datetime | None, now: datetime
) -> TimeLeft | None:
    """Return the time left of a rollout whose waves up to ``wave`` have started.

    Returns None if no agent of ``wave`` has finished.

    ``counts`` are the agents that count, by wave and progress. ``pace`` is that of ``wave``. The pauses between waves
    are added. The estimate ends at the first wave with a hold, because nobody knows how long people take.
    """
    if not pace.finished:
        return None
    total = {number: _count(counts, wave=number) for number, _ in counts}
    unfinished = sum(n for (number, progress), n in counts.items() if number <= wave and progress not in FINISHED)
    left, before = unfinished * pace.per_agent, wave
    for number in sorted(each for each, count in total.items() if each > wave and count):
        if (hold := strategy.find_hold(before, number)) is not None:
            return TimeLeft(left, number, hold)
        if before == wave and wave_done_at is not None:
            left += max(pause_end(strategy, wave_done_at) - now, timedelta())
        else:
            left += timedelta(seconds=strategy.pause_s)
        left, before = left + total[number] * pace.per_agent, number
    return TimeLeft(left)


def estimate_rollback(counts: Mapping[str, int], pace: Pace) -> TimeLeft | None:
    """Return the time left of a rollback with these numbers of agents by progress; None if no agent has finished."""
    if not pace.finished:
        return None
    unfinished = sum(n for progress, n in counts.items() if progress not in {*FINISHED, AgentProgress.PENDING})
    return TimeLeft(unfinished * pace.per_agent)


def describe_progress(percent: int | None, left: TimeLeft | None) -> str:
    """Return the share that is done and the time left as a phrase, such as "62 % done, about 12 min left".

    Returns "" without a ``percent``.
    """
    if percent is None:
        return ""
    done = f"{percent}\N{NO-BREAK SPACE}% done"
    if left is None:
        return done
    about = _describe(left.time)
    if left.held_wave is None or left.hold is None:
        return f"{done}, {about} left"
    return f"{done}, {about} until wave {left.held_wave + 1} needs {_NEEDS[left.hold]}"


def _describe(time: timedelta) -> str:
    """Return a time rounded to minutes, to ten minutes if it is over an hour, or to hours if it is over a day."""
    minutes = round(time / timedelta(minutes=1))
    if time < timedelta(minutes=1):
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    if minutes < 24 * 60:
        hours, rest = divmod(round(time / timedelta(minutes=10)) * 10, 60)
        return f"about {hours} h {rest} min" if rest else f"about {hours} h"
    days, hours = divmod(round(time / timedelta(hours=1)), 24)
    return f"about {days} d {hours} h" if hours else f"about {days} d"


def _count(counts: CountsByWave, words: Sequence[str] = tuple(AgentProgress), wave: int | None = None) -> int:
    return sum(n for (number, progress), n in counts.items() if progress in words and wave in {None, number})
