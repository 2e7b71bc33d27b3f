"""Freeze windows: times in which nothing is deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_STEP = {"daily": timedelta(days=1), "weekly": timedelta(weeks=1)}


def active_window(windows: Iterable[Mapping[str, Any]], now: datetime) -> Mapping[str, Any] | None:
    """The first window that ``now`` falls into; a recurring one repeats at the same wall-clock time in its zone."""
    return next((window for window in windows if _end(window, now) is not None), None)


def open_until(windows: Iterable[Mapping[str, Any]], now: datetime) -> tuple[Mapping[str, Any], datetime] | None:
    """Of the windows that ``now`` falls into the one that ends last, and when it does."""
    ends = [(window, end) for window in windows if (end := _end(window, now)) is not None]
    return max(ends, key=lambda pair: pair[1], default=None)


def _end(window: Mapping[str, Any], now: datetime) -> datetime | None:
    """When the window ends that ``now`` falls into; None when it falls into none."""
    zone = ZoneInfo(window.get("time_zone") or "UTC")
    start, end = (datetime.fromisoformat(window[edge]).astimezone(zone) for edge in ("start", "end"))
    step = _STEP.get(window.get("recurrence") or "")
    if step is not None and now > start:
        # Within one zone this is arithmetic of the wall clock: the same hour before and after a change of it.
        shift = step * ((now.astimezone(zone) - start) // step)
        start, end = start + shift, end + shift
    return end if start <= now < end else None
