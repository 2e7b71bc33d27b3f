"""The panel of an agent's page with the agent's history: as a bar over time, and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from zlib import crc32

from django.utils.html import format_html

from apps.console.frame import relative_time, row_link, with_note
from apps.console.frame.columns import exact_time
from apps.console.pages.agents.records import INTERVALS, Deployments, Interval
from apps.console.pages.series import DAY, WEEK
from apps.fleet.models import STALE_AFTER
from byteor.engine.counted import count_of

SHOWN: Final = 12  # rows of the table
RANGES: Final = {
    "day": ("Last 24 hours", DAY),
    "week": ("Last 7 days", WEEK),
    "month": ("Last 30 days", timedelta(days=30)),
}
_TICKS: Final = 4
_HUE_STEP: Final = 137  # degrees; about the golden angle, so that consecutive versions differ clearly


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the bar. ``hue`` is the color of the version, None for gaps and unknown bundles."""

    start: datetime
    end: datetime
    label: str
    detail: str
    kind: str  # a CSS class: "ran", "silent" or "nothing"
    hue: int | None = None

    def shown(self) -> dict[str, Any]:
        """Return the values that the template shows."""
        seconds = int((self.end - self.start).total_seconds())
        until = f"{exact_time(self.start)} to {exact_time(self.end)}"
        return {
            "share": max(1, seconds), "label": self.label, "kind": self.kind, "hue": self.hue,
            "title": f"{self.detail}, {until}",
        }  # fmt: skip


def history_panel(
    agent: Any, intervals: Sequence[Interval], deployments: Deployments, chosen: str, now: datetime
) -> dict[str, Any]:
    """Return the panel. ``intervals`` are the newest ones, newest first, and ``chosen`` is a key of ``RANGES``."""
    title, span = RANGES[chosen]
    since = now - span
    parts = list(_parts(agent, intervals, deployments, since, now)) if intervals else []
    ran = [part for part in parts if part.kind != "nothing"]
    form = "%H:%M" if chosen == "day" else "%b %d"
    ticks = [(since + span * place / _TICKS).strftime(form) for place in range(_TICKS)]
    return {
        "id": "history",
        "title": "History",
        "ranges": [(key, text, key == chosen) for key, (text, _) in RANGES.items()],
        "parts": [part.shown() for part in parts],
        "text": f"{title}: {_describe(ran)}",
        "legend": _legend(ran),
        "has_silence": any(part.kind == "silent" for part in ran),
        "has_gaps": len(ran) < len(parts),
        "ticks": [*ticks, "now"],
        "columns": ("From", "Until", "What ran", "Approved by"),
        "rows": [_row(each, deployments) for each in intervals[:SHOWN]],
        "empty": "The history contains no bundles.",
    }


def _describe(ran: Sequence[_Part]) -> str:
    """Return the bar's text for screen readers: the versions that ran, oldest first, and in how many parts."""
    names = list(dict.fromkeys(part.label for part in ran))
    return f"{', '.join(names)}; {count_of(len(ran), 'segment')}" if names else "nothing ran"


def _legend(ran: Sequence[_Part]) -> list[tuple[str, int | None]]:
    """Return each version of the bar with its hue, newest first."""
    return list(dict.fromkeys((part.label, part.hue) for part in reversed(ran)))


def _parts(
    agent: Any, intervals: Sequence[Interval], deployments: Deployments, since: datetime, now: datetime
) -> Iterator[_Part]:
    """Yield the parts of the bar, oldest first. After the enrollment, gaps that are too short to see are left out."""
    shortest = (now - since) / 1000
    silence = timedelta(seconds=STALE_AFTER * agent.heartbeat.next_heartbeat_s)
    at, before = since, ""
    if len(intervals) == INTERVALS:
        before = f"Not shown, because the bar shows only the last {INTERVALS} periods"
    elif (enrolled := min(agent.created_at, intervals[-1].started_at)) > since:
        yield _Part(since, enrolled, "", "Not enrolled yet", "nothing")
        at = enrolled
    for each in reversed(intervals):
        end = each.ended_at or now
        if end <= since:
            before = ""
            continue
        start = max(each.started_at, at)
        if start - at > shortest:
            yield _Part(at, start, "", before or "Nothing ran", "nothing")
        before = ""
        label, detail, hue = _name(each, deployments)
        seen = min(max(each.confirmed, start), end)
        if end - seen <= max(silence, shortest):
            seen = end
        if seen > start:
            yield _Part(start, seen, label, detail, "ran", hue)
        if end > seen:
            yield _Part(seen, end, label, f"{detail}, no heartbeats", "silent", hue)
        at = max(at, end)
    if now - at > shortest:
        yield _Part(at, now, "", "Nothing ran", "nothing")


def _name(interval: Interval, deployments: Deployments) -> tuple[str, str, int | None]:
    """Return the interval's version, a text with its config bundle, and the hue of the version."""
    found = deployments.find(interval.bundle_hash, interval.deployment_id)
    if found is None:
        return "unknown bundle", f"Unknown bundle {interval.bundle_hash}", None
    version = found.config_bundle.version
    hue = (crc32(version.name.encode()) + _HUE_STEP * version.number) % 360
    return str(version), f"{version} (bundle {found.config_bundle.name})", hue


def _row(interval: Interval, deployments: Deployments) -> tuple[Any, ...]:
    confirmed = format_html("confirmed {}", relative_time(interval.confirmed))
    until = relative_time(interval.ended_at) if interval.ended_at else with_note("now", confirmed)
    found = deployments.find(interval.bundle_hash, interval.deployment_id)
    return (
        relative_time(interval.started_at),
        until,
        with_note(
            deployments.name(interval.bundle_hash, interval.deployment_id),
            row_link(found, "Deployment") if found else "The environment has no deployment with this bundle.",
        ),
        (", ".join(found.approved_by) if found else "") or "-",
    )
