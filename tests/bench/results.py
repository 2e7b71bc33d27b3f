"""The results of benchmarks, compared with their goals: as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One result. ``value`` must be at least ``goal``, or with ``is_most`` at most ``goal``."""

    work: str
    value: float
    goal: float
    unit: str = ""
    is_most: bool = False
    low: float | None = None
    high: float | None = None
    note: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_reached(self) -> bool:
        """Whether the goal is reached."""
        return self.value <= self.goal if self.is_most else self.value >= self.goal

    @property
    def share(self) -> float:
        """The share of the goal that is reached: 1 if it is reached exactly, above 1 if the value is better.

        If the value or the goal is not positive: 2 if the goal is reached, otherwise 0.01.
        """
        if self.value <= 0 or self.goal <= 0:
            return 2.0 if self.is_reached else 0.01
        return self.goal / self.value if self.is_most else self.value / self.goal

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the cells of the row: work, value, range of the rounds, goal, verdict."""
        spread = "" if self.low is None or self.high is None else f"{_text(self.low)} to {_text(self.high)}"
        goal = f"{'≤' if self.is_most else '≥'} {_text(self.goal)}{self.unit}"
        return self.work, f"{_text(self.value)}{self.unit}", spread, goal, "yes" if self.is_reached else "no"


def ratio(
    work: str, rates: Mapping[str, Sequence[float]], *, goal: float, is_most: bool = False, note: str = ""
) -> Row:
    """Compare the medians of two series of rounds; ``work`` is ``NAME / YARDSTICK`` and both are keys of ``rates``."""
    name, yardstick = work.split(" / ")
    per_round = [one / other for one, other in zip(rates[name], rates[yardstick], strict=True)]
    medians = {each: statistics.median(rates[each]) for each in (name, yardstick)}
    return Row(
        work, medians[name] / medians[yardstick], goal, is_most=is_most, low=min(per_round), high=max(per_round),
        note=note, measured={each: round(value, 3) for each, value in medians.items()},
    )  # fmt: skip


def _text(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns, followed by their notes."""
    cells = [("work", "measured", "range of the rounds", "goal", "reached"), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines + [f"{row.work}: {row.note}" for row in rows if row.note])


def save(path: Path, rows: Sequence[Row], context: Mapping[str, Any]) -> None:
    """Write the rows and ``context``, such as the machine and versions, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**context, "rows": [asdict(row) | {"is_reached": row.is_reached} for row in rows]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> list[Row]:
    """Read the rows that ``save`` wrote."""
    rows = json.loads(path.read_text())["rows"]
    return [Row(**{name: value for name, value in row.items() if name != "is_reached"}) for row in rows]


_LINE, _LEFT, _WIDTH, _RIGHT, _TOP = 26, 400, 420, 170, 56
_FROM, _TO = 0.05, 20.0


def draw(path: Path, rows: Sequence[Row], caption: str) -> None:
    """Draw a bar for each row with its share of the goal, on a logarithmic scale. The solid line marks the goals."""
    height = _TOP + _LINE * len(rows) + 40
    total = _LEFT + _WIDTH + _RIGHT

    def x(share: float) -> float:
        inside = min(max(share, _FROM), _TO)
        return _LEFT + _WIDTH * math.log(inside / _FROM) / math.log(_TO / _FROM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}"',
        '  font-family="sans-serif" font-size="13">',
        f'<rect width="{total}" height="{height}" fill="white"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(caption)}</text>',
    ]
    for share, label in ((0.1, "a tenth"), (1.0, "goal"), (10.0, "ten times")):
        parts.append(
            f'<line x1="{x(share):.0f}" x2="{x(share):.0f}" y1="{_TOP - 8}" y2="{height - 30}" stroke="#999"'
            f"{'' if share == 1 else ' stroke-dasharray=' + chr(34) + '2 4' + chr(34)}/>"
            f'<text x="{x(share):.0f}" y="{height - 14}" text-anchor="middle" fill="#555">{label}</text>'
        )
    for number, row in enumerate(rows):
        y = _TOP + _LINE * number
        work, value, _, goal, _ = row.cells()
        color = "#2a7d4f" if row.is_reached else "#c4622d"
        parts += [
            f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(work)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{x(row.share) - _LEFT:.0f}" height="18" fill="{color}"/>',
            f'<text x="{_LEFT + _WIDTH + 10}" y="{y + 13}">{escape(value)}  ({escape(goal)})</text>',
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
