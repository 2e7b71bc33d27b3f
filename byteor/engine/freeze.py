"""Freeze windows: times in which a deployment starts only if it overrides the window."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo


class Recurrence(StrEnum):
    """How often a window repeats."""

    DAILY = "daily"
    WEEKLY = "weekly"


_STEP = {Recurrence.DAILY: timedelta(days=1), Recurrence.WEEKLY: timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """A freeze window. ``start`` and ``end`` without an offset are wall-clock times in ``time_zone``."""

    start: datetime
    end: datetime
    reason: str = ""
    time_zone: str = "UTC"
    recurrence: Recurrence | None = None

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read a window from the JSON of an environment's settings."""
        recurrence = stored.get("recurrence")
        return cls(
            datetime.fromisoformat(stored["start"]),
            datetime.fromisoformat(stored["end"]),
            stored.get("reason", ""),
            stored.get("time_zone") or "UTC",
            Recurrence(recurrence) if recurrence else None,
        )


class WindowFault(NamedTuple):
    """The fault of a window: the faulty edge (``start`` or ``end``), a stable code and a message."""

    edge: str
    code: str
    detail: str


def find_fault(window: FreezeWindow) -> WindowFault | None:
    """Return the first fault of a window, or None if the window is valid.

    If the clocks show the time of an edge twice, the window starts at the first or ends at the second occurrence.
    """
    zone = ZoneInfo(window.time_zone)
    for edge, moment in (("start", window.start), ("end", window.end)):
        if moment.tzinfo is None and is_skipped(moment, zone):
            detail = f"The clocks in {zone} skip this time. Use another time, or add an offset from UTC."
            return WindowFault(edge, "skipped", detail)
    if possible_instants(window.end, zone)[1] <= possible_instants(window.start, zone)[0]:
        return WindowFault("end", "invalid", "Must be after start.")
    return None


def is_loosened(old: Collection[object], new: Collection[object]) -> bool:
    """Return whether one of the ``old`` windows was removed or altered. Both arguments need items of the same type."""
    return any(window not in new for window in old)


def active_window(windows: Iterable[FreezeWindow], now: datetime) -> FreezeWindow | None:
    """Return the first window that contains ``now``, or None. Recurring windows repeat at the same wall-clock time."""
    return next((window for window in windows if _end(window, now) is not None), None)


def last_open_window(windows: Iterable[FreezeWindow], now: datetime) -> tuple[FreezeWindow, datetime] | None:
    """Return the window that contains ``now`` and ends last, with its end; None if no window contains ``now``."""
    ends = [(window, end) for window in windows if (end := _end(window, now)) is not None]
    return max(ends, key=lambda pair: pair[1], default=None)


def occurrences(
    windows: Iterable[FreezeWindow], now: datetime, until: datetime
) -> list[tuple[datetime, datetime, FreezeWindow]]:
    """Return the start, end and window of each occurrence that is open at any time from ``now`` to ``until``.

    The occurrences are sorted by start. Each start and end is in the time zone of its window.
    """
    found = []
    for window in windows:
        zone = ZoneInfo(window.time_zone)
        start, end = (_wall_clock_time(moment, zone) for moment in (window.start, window.end))
        step = _STEP[window.recurrence] if window.recurrence else None
        number = max(0, (_wall_clock_time(now, zone) - end) // step) if step else 0
        while True:
            edges = (start + step * number, end + step * number) if step and number else (window.start, window.end)
            first, last = possible_instants(edges[0], zone)[0], possible_instants(edges[1], zone)[1]
            if first >= until:
                break
            if last > now:
                found.append((first.astimezone(zone), last.astimezone(zone), window))
            if step is None:
                break
            number += 1
    return sorted(found, key=lambda each: each[0])


def possible_instants(moment: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the earliest and the latest instant in UTC that ``moment`` can mean.

    The two are equal if ``moment`` has an offset. Without an offset, ``moment`` is a wall-clock time in ``zone``. When
    the clocks change, such a time can occur twice, or be skipped. A skipped time can mean an instant before or after
    the change.
    """
    if moment.tzinfo is not None:
        return moment.astimezone(UTC), moment.astimezone(UTC)
    first, second = sorted(moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first, second


def is_skipped(moment: datetime, zone: ZoneInfo) -> bool:
    """Return whether the clocks of ``zone`` skip this wall-clock time."""
    shown = moment.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return shown.replace(tzinfo=None) != moment.replace(fold=0)


def _end(window: FreezeWindow, now: datetime) -> datetime | None:
    """Return when the window's occurrence that contains ``now`` ends, or None. Of several, the latest end counts."""
    zone = ZoneInfo(window.time_zone)
    occurrences = [(possible_instants(window.start, zone)[0], possible_instants(window.end, zone)[1])]
    if window.recurrence is not None:
        occurrences += _repetitions(window.start, window.end, _STEP[window.recurrence], zone, now)
    ends = [last for first, last in occurrences if first <= now < last]
    return max(ends, default=None)


def _repetitions(
    start: datetime, end: datetime, step: timedelta, zone: ZoneInfo, now: datetime
) -> Iterable[tuple[datetime, datetime]]:
    """Yield the start and end of the repetitions around ``now``.

    If a wall-clock time is ambiguous, a start is the earlier instant, and an end the later one.
    """
    start, end, wall = (_wall_clock_time(moment, zone) for moment in (start, end, now))
    latest = (wall - start) // step
    # Also yield the neighboring repetitions: in an hour that occurs twice, the wall-clock time is not enough to find
    # the right one.
    for number in range(max(1, latest - 1), latest + 2):
        shift = step * number
        yield possible_instants(start + shift, zone)[0], possible_instants(end + shift, zone)[1]


def _wall_clock_time(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the wall-clock time that ``zone`` shows at ``moment``, without an offset."""
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None, fold=0)
