"""Freeze windows: times in which nothing is deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self
from zoneinfo import ZoneInfo


class Recurrence(StrEnum):
    """How often a window repeats."""

    DAILY = "daily"
    WEEKLY = "weekly"


_STEP = {Recurrence.DAILY: timedelta(days=1), Recurrence.WEEKLY: timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """A time in which nothing is deployed; without an offset, ``start`` and ``end`` are wall-clock time."""

    start: datetime
    end: datetime
    reason: str = ""
    time_zone: str = "UTC"
    recurrence: Recurrence | None = None

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the form in which an environment's settings hold the window."""
        recurrence = stored.get("recurrence")
        return cls(
            datetime.fromisoformat(stored["start"]),
            datetime.fromisoformat(stored["end"]),
            stored.get("reason", ""),
            stored.get("time_zone") or "UTC",
            Recurrence(recurrence) if recurrence else None,
        )


def active_window(windows: Iterable[FreezeWindow], now: datetime) -> FreezeWindow | None:
    """Return the first window that ``now`` falls into; a recurring one repeats at the same wall-clock time."""
    return next((window for window in windows if _end(window, now) is not None), None)


def open_until(windows: Iterable[FreezeWindow], now: datetime) -> tuple[FreezeWindow, datetime] | None:
    """Return, of the windows that ``now`` falls into, the one that ends last, and when it does."""
    ends = [(window, end) for window in windows if (end := _end(window, now)) is not None]
    return max(ends, key=lambda pair: pair[1], default=None)


def instants(moment: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the earliest and the latest instant in UTC that ``moment`` can mean.

    With an offset both are the same. Without one it is wall-clock time in ``zone``, and when the clocks change there
    may be two: an hour that they repeat comes twice, and one that they skip is meant before or after.
    """
    if moment.tzinfo is not None:
        return moment.astimezone(UTC), moment.astimezone(UTC)
    first, second = sorted(moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first, second


def is_skipped(moment: datetime, zone: ZoneInfo) -> bool:
    """Whether no clock in ``zone`` ever shows this wall-clock time."""
    shown = moment.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return shown.replace(tzinfo=None) != moment.replace(fold=0)


def _end(window: FreezeWindow, now: datetime) -> datetime | None:
    """Return when the window ends that ``now`` falls into; None when it falls into none."""
    zone = ZoneInfo(window.time_zone)
    occurrences = [(instants(window.start, zone)[0], instants(window.end, zone)[1])]
    if window.recurrence is not None:
        occurrences += _repetitions(window.start, window.end, _STEP[window.recurrence], zone, now)
    ends = [last for first, last in occurrences if first <= now < last]
    return max(ends, default=None)


def _repetitions(
    start: datetime, end: datetime, step: timedelta, zone: ZoneInfo, now: datetime
) -> Iterable[tuple[datetime, datetime]]:
    """Yield the occurrences around ``now``, each in its widest reading when the clocks change at its edges."""
    start, end, wall = (_on_the_wall(moment, zone) for moment in (start, end, now))
    latest = (wall - start) // step
    # The one before and the one after too: in an hour that comes twice, the wall clock alone does not tell them apart.
    for number in range(max(1, latest - 1), latest + 2):
        shift = step * number
        yield instants(start + shift, zone)[0], instants(end + shift, zone)[1]


def _on_the_wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the wall-clock time that ``zone`` shows at ``moment``, without an offset."""
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None, fold=0)
