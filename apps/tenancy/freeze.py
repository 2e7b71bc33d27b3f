"""Freeze windows: times in which nothing is deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_STEP = {"daily": timedelta(days=1), "weekly": timedelta(weeks=1)}


def active_window(windows: Iterable[Mapping[str, Any]], now: datetime) -> Mapping[str, Any] | None:
    """The first window that ``now`` falls into; a recurring one repeats at the same wall-clock time in its zone."""
    for window in windows:
        zone = ZoneInfo(window.get("time_zone") or "UTC")
        start = datetime.fromisoformat(window["start"]).astimezone(zone)
        length = datetime.fromisoformat(window["end"]) - datetime.fromisoformat(window["start"])
        step = _STEP.get(window.get("recurrence") or "")
        if step is not None and now > start:
            # Wall-clock arithmetic: the same hour of the day before and after a change to summer time.
            wall_now, wall_start = now.astimezone(zone).replace(tzinfo=None), start.replace(tzinfo=None)
            start = (wall_start + step * ((wall_now - wall_start) // step)).replace(tzinfo=zone)
        if start <= now < start + length:
            return window
    return None
