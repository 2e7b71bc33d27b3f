"""The series of an agent: charts of block characters on a terminal, otherwise a table of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from operator import attrgetter
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final

from byteor.command.output import is_terminal, note, say, show_list

if TYPE_CHECKING:
    from byteor.client import models as m

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_SHORTEST: Final = 8  # the maximum width of a chart on a narrow terminal, in characters
_TITLE, _NUMBERS = 13, 36  # the widths of the columns left and right of the chart, in characters


def _count(value: float) -> str:
    return f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class _Line:
    """One chart. A bar of several slots shows the sum of a counter's values, or the maximum of other values."""

    title: str
    field: str
    show: Callable[[float], str] = _count
    is_counter: bool = True

    def combine(self, values: Sequence[float]) -> float:
        return sum(values) if self.is_counter else max(values)


_LINES: Final = (
    _Line("Records in", "records_in"),
    _Line("Records out", "records_out"),
    _Line("Drops", "drops"),
    _Line("Errors", "errors"),
    _Line("CPU", "cpu_percent", "{:,.1f}%".format, is_counter=False),
    _Line("Memory", "memory_bytes", lambda value: f"{value / 2**20:,.0f} MiB", is_counter=False),
    _Line("Restarts", "restarts"),
)


def show_series(series: m.Series) -> None:
    """Print a chart for each value that was reported, or a row for each slot if stdout is not a terminal.

    Without heartbeats, prints only a note.
    """
    points = series.points
    if not any(point.online for point in points):
        note("No stored heartbeats in this period.")
    elif is_terminal():
        for line in _charts(points, series.step_s, get_terminal_size().columns):
            say(line)
    else:
        columns: dict[str, Callable[[Any], Any]] = {"at": lambda point: point.at.isoformat().replace("+00:00", "Z")}
        columns |= {line.field: attrgetter(line.field) for line in _LINES}
        show_list(points, None, columns, len(points))


def _charts(points: Sequence[m.SeriesPoint], step_s: int, width: int) -> Iterator[str]:
    """Yield the time range, and a line for each chart. If there are more slots than characters, slots are combined."""
    size = -(-len(points) // max(_SHORTEST, width - _TITLE - _NUMBERS))
    start, end = points[0].at, points[-1].at + timedelta(seconds=step_s)
    minutes = size * step_s // 60
    yield f"{start.astimezone(UTC):%Y-%m-%d %H:%M} to {end.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {minutes} min per bar"
    for line in _LINES:
        if any(getattr(point, line.field) is not None for point in points):
            yield f"{line.title:{_TITLE}}{_draw(line, points, size)}"


def _draw(line: _Line, points: Sequence[m.SeriesPoint], size: int) -> str:
    values: list[float | None] = []
    for at in range(0, len(points), size):
        known = [value for point in points[at : at + size] if (value := getattr(point, line.field)) is not None]
        values.append(line.combine(known) if known else None)
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    bars = "".join(" " if value is None else _bar(value, high) for value in values)
    total = f", total {line.show(sum(known))}" if line.is_counter else ""
    numbers = line.show(low) if low == high else f"{line.show(low)} to {line.show(high)}"
    return f"{bars}  {numbers}{total}"


def _bar(value: float, high: float) -> str:
    return _BLOCKS[round(value / high * (len(_BLOCKS) - 1))] if high else _BLOCKS[0]
