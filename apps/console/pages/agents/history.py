"""The panel of an agent's page that shows which bundles the agent ran, and who approved them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.utils import timezone
from django.utils.html import format_html

from apps.console.frame import relative_time, short_id, with_note
from apps.console.frame.columns import page_url, text_link
from apps.fleet.services import history
from apps.releases.models import Deployment
from apps.releases.services import provenance

SHOWN = 12
# Adjacent intervals alternate between two tones. The interval that has not ended and the gaps have other tones.
_TONES, _NOW, _NOTHING = ("busy", "waiting"), "good", "plain"


def history_panel(agent: Any) -> dict[str, Any]:
    """Return the panel with the agent's last intervals as a timeline and as a table."""
    intervals = list(history.intervals().filter(agent=agent).order_by("-started_at", "-id")[:SHOWN])
    origins = provenance.find_origins(agent.environment, intervals)
    return {
        "title": "History",
        "timeline": _timeline(intervals, timezone.now()),
        "columns": ("From", "Until", "Bundle and deployment", "Approved by"),
        "rows": [_row(each, origins[each.pk]) for each in intervals],
        "empty": "The agent has not run a bundle yet.",
    }


def _row(interval: Any, origin: provenance.Origin) -> tuple[Any, ...]:
    pk = origin.deployment_id
    deployment = text_link(page_url(Deployment, "change", pk), short_id(pk)) if pk else ""
    until = relative_time(interval.ended_at) if interval.ended_at else with_note("now", _confirmed(interval.confirmed))
    return (
        relative_time(interval.started_at),
        until,
        with_note(short_id(interval.bundle_hash), deployment),
        ", ".join(origin.approved_by) or "-",
    )


def _confirmed(moment: datetime) -> str:
    return format_html("confirmed {}", relative_time(moment))


def _timeline(intervals: Sequence[Any], now: datetime) -> dict[str, Any] | None:
    """Return a bar from the start of the oldest interval to now, including gaps; None without intervals."""
    if not intervals:
        return None
    parts: list[tuple[str, int, str]] = []
    oldest_first = intervals[::-1]
    for number, (interval, following) in enumerate(pairwise([*oldest_first, None])):
        end = interval.ended_at or now
        tone = _NOW if interval.ended_at is None else _TONES[number % 2]
        parts.append((tone, _seconds(end - interval.started_at), interval.bundle_hash))
        gap = _seconds((following.started_at if following else now) - end)
        if gap > 0:
            parts.append((_NOTHING, gap, "nothing"))
    return {
        "text": f"Timeline of the last {len(intervals)} intervals",
        "parts": parts,
        "start": relative_time(oldest_first[0].started_at),
    }


def _seconds(duration: timedelta) -> int:
    return max(0, int(duration.total_seconds()))
