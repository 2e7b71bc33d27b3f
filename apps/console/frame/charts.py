"""Charts of values over time, drawn as SVG by the server, with marks for events and a table of the same values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

from apps.console.frame.columns import exact_time

_HEIGHT: Final = 40  # in units of the SVG's view box, whose width is the number of slots
_TABLE_ROWS: Final = 24


@dataclass(frozen=True, slots=True)
class Line:
    """The values of one chart, one for each slot of time, oldest first; None for unknown values.

    ``tone`` is the name of the color in console.css. ``show`` formats a value. ``combine`` computes the value of a
    table row from the known values of the row's slots.
    """

    title: str
    values: Sequence[float | None]
    tone: str = "busy"
    show: Callable[[float], str] = "{:,.0f}".format
    combine: Callable[[Iterable[float]], float] = sum


@dataclass(frozen=True, slots=True)
class Mark:
    """An event that the charts mark with a vertical line, with a text and the URL of its page."""

    at: datetime
    text: str
    url: str


def draw_charts(
    times: Sequence[datetime], step: timedelta, lines: Sequence[Line], marks: Iterable[Mark] = (), *, empty: str
) -> dict[str, Any]:
    """Return the data of ``console/charts.html``: a chart for each line, all with the same times and marks.

    ``times`` are the times at which the slots start, and ``step`` is the length of a slot. ``empty`` is the text that
    is shown if no line has a value. Marks outside of the slots are left out.
    """
    if not any(value is not None for line in lines for value in line.values):
        return {"empty": empty}
    start, end = times[0], times[-1] + step
    inside = enumerate(sorted((mark for mark in marks if start <= mark.at < end), key=lambda mark: mark.at), 1)
    form = "%H:%M" if end - start <= timedelta(days=2) else "%b %d"
    return {
        "width": len(times),
        "height": _HEIGHT,
        "charts": [_chart(line, times) for line in lines],
        "marks": [
            {"number": number, "place": round((mark.at - start) / step, 2), "time": exact_time(mark.at), "mark": mark}
            for number, mark in inside
        ],
        "ends": (start.strftime(form), (start + (end - start) / 2).strftime(form), end.strftime(form)),
        "columns": [line.title for line in lines],
        "rows": _rows(times, lines),
    }


def _chart(line: Line, times: Sequence[datetime]) -> dict[str, Any]:
    most, when = max(
        ((value, at) for value, at in zip(line.values, times, strict=True) if value is not None),
        key=lambda pair: pair[0],
        default=(0.0, times[-1]),
    )
    last = next((value for value in reversed(line.values) if value is not None), None)
    latest = "no data" if last is None else f"latest {line.show(last)}"
    peak = f"highest {line.show(most)}, {exact_time(when)}" if most else ""
    runs = _runs(line.values, most or 1)
    return {
        "title": line.title,
        "tone": line.tone,
        "latest": latest,
        "peak": peak,
        "text": f"{line.title}: {latest}{', ' if peak else ''}{peak}",
        "line": " ".join(f"M{' L'.join(f'{x} {y}' for x, y in run)}" for run in runs),
        "area": " ".join(
            f"M{run[0][0]} {_HEIGHT} L{' L'.join(f'{x} {y}' for x, y in run)} L{run[-1][0]} {_HEIGHT}Z" for run in runs
        ),
    }


def _runs(values: Sequence[float | None], most: float) -> list[list[tuple[float, float]]]:
    """Return the points of each run of known values. The line of a single value is as long as its slot."""
    runs = []
    for is_known, run in groupby(enumerate(values), key=lambda pair: pair[1] is not None):
        if is_known:
            points = [
                (place + 0.5, round(_HEIGHT - 1 - (value or 0) / most * (_HEIGHT - 2), 2)) for place, value in run
            ]
            (first, height), (last, end) = points[0], points[-1]
            runs.append([(first - 0.5, height), *points, (last + 0.5, end)])
    return runs


def _rows(times: Sequence[datetime], lines: Sequence[Line]) -> list[tuple[str, list[str]]]:
    """Return the time and the values of each row of the table.

    If there are more than ``_TABLE_ROWS`` slots, each row combines several.
    """
    size = -(-len(times) // _TABLE_ROWS)
    rows = []
    for first in range(0, len(times), size):
        cells = []
        for line in lines:
            known = [value for value in line.values[first : first + size] if value is not None]
            cells.append(line.show(line.combine(known)) if known else "-")
        rows.append((exact_time(times[first]), cells))
    return rows
