"""How values look in the console's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models import CharField, DateTimeField, Field, Model
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

# A word of any state to the tone of its pill.
TONES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "active",
            "approved",
            "approve",
            "verified",
            "succeeded",
            "online",
            "healthy",
            "success",
            "current",
            "delivered",
        ),
        "good",
    ),
    **dict.fromkeys(("building", "deploying", "running", "doing", "downloading", "activating", "offered"), "busy"),
    **dict.fromkeys(("pending_approval", "pending", "queued", "todo", "received", "starting"), "waiting"),
    **dict.fromkeys(
        ("rolling_back", "stale", "degraded", "draining", "diverged", "expired", "retiring", "paused", "drifted"),
        "warn",
    ),
    **dict.fromkeys(("failed", "denied", "deny", "rejected", "offline", "error", "known bad", "revoked"), "bad"),
    "break glass": "bad",
    "freeze overridden": "warn",
    # Reasons of an explanation.
    "runs_desired": "good",
    **dict.fromkeys(("rollback_failed", "deployment_failed", "known_bad", "threshold", "break_glass"), "bad"),
    **dict.fromkeys(("local_rollback", "not_fetched", "freeze_window", "superseded", "ended_before_its_turn"), "warn"),
    **dict.fromkeys(
        ("waits_for_approval", "waits_for_freeze", "waits_for_turn", "waits_for_wave", "held_up"), "waiting"
    ),
    "staging": "waiting",
    "prod": "busy",
}


def pill(word: str | None) -> str:
    """A state as a coloured word."""
    if not word:
        return "-"
    return format_html('<span class="pill {}">{}</span>', TONES.get(word, "plain"), word.replace("_", " "))


def link(row: Model | None, text: str | None = None) -> str:
    """A row as a link to its page."""
    if row is None:
        return "-"
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[quote(row.pk)])
    return format_html('<a class="to" href="{}">{}</a>', url, text or str(row))


def short(value: Any) -> str:
    """A hash or an id, cut; the whole of it is in the tooltip."""
    if not value:
        return "-"
    text = str(value)
    head, _, rest = text.rpartition(":")
    shown = f"{head}:{rest[:10]}…" if head else f"…{text[-8:]}"
    return format_html('<code class="short" title="{}">{}</code>', text, shown)


def noted(first: Any, note: str) -> str:
    """A value with a word on it below."""
    return format_html('{}<div class="note">{}</div>', first, note) if note else str(first)


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ago(moment: datetime | None) -> str:
    """How long ago, or in how long; the exact time is in the tooltip."""
    if moment is None:
        return "-"
    seconds = int((timezone.now() - moment).total_seconds())
    size, unit = next((each for each in _UNITS if abs(seconds) >= each[0]), (1, "s"))
    count = abs(seconds) // size
    text = "now" if count == 0 else f"{count} {unit} ago" if seconds > 0 else f"in {count} {unit}"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact(moment), text)


def until(moment: datetime | None) -> str:
    """A time that is waited for: how long still, which the browser counts down."""
    if moment is None or moment <= timezone.now():
        return ago(moment)
    return format_html(
        '<time datetime="{}" title="{}" data-until>{}</time>', moment.isoformat(), exact(moment),
        f"{_long((moment - timezone.now()).total_seconds())} left",
    )  # fmt: skip


def _long(seconds: float) -> str:
    """A span by its two largest units, as live.js says it too."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])


def exact(moment: datetime | None) -> str:
    """A time, to the second."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def where(environment: Any) -> str:
    """An environment with its project, since names repeat."""
    return link(environment, f"{environment.project} / {environment}")


_STATES = frozenset({"status", "progress", "posture", "decision", "outcome"})


def _look(field: Field[Any, Any], *, in_table: bool) -> Callable[[Any], str] | None:
    if isinstance(field, DateTimeField):
        return ago if in_table else exact
    if isinstance(field, CharField) and field.name in _STATES:
        return pill
    if field.name == "environment":
        return where
    return short if in_table and field.name.endswith("hash") else None


@cache
def column(field: Field[Any, Any], *, in_table: bool) -> Any:
    """What a table or a page shows of the field: its name for Django's own look, or a display of ours."""
    look = _look(field, in_table=in_table)
    if look is None:
        return field.name

    def shown(row: Model) -> str:
        return look(getattr(row, field.name))

    title = str(field.verbose_name).removesuffix(" at").removesuffix(" hash")
    shown.__name__ = field.name
    return admin.display(description=title[0].upper() + title[1:], ordering=field.name)(shown)
