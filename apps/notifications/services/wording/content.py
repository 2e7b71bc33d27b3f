"""The content of a message, before it is formatted as an e-mail, a chat message or an entry in the bell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.urls import reverse

MAX_LINES = 20
"""The maximum number of lines below the sentence. A further line counts those that are left out."""


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a message: a sentence, lines with details, and the path and label of the link to one page.

    It contains no markup, no payload and, except for the path of a sign-in link, no secret.
    """

    sentence: str
    path: str
    action: str
    lines: tuple[str, ...] = ()


def page_path(table: str, pk: object) -> str:
    """Return the path of a row's page in the console. ``table`` is the app and model, such as ``releases_approval``."""
    return reverse(f"admin:{table}_change", args=[pk])


def format_time(moment: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def join_names(names: Sequence[str], count: int) -> str:
    """Return the names as an enumeration, such as "a, b and 3 more". ``count`` includes the names not given."""
    more = [f"{count - len(names):,} more"] if count > len(names) else []
    *first, last = [*names, *more]
    return f"{', '.join(first)} and {last}" if first else last


def shorten(lines: list[str]) -> tuple[str, ...]:
    """Return the first lines, each cut to 300 characters. If lines are omitted, a last line states their number."""
    shown = [line if len(line) <= 300 else f"{line[:299]}…" for line in lines[:MAX_LINES]]
    if more := len(lines) - len(shown):
        shown.append(f"{more:,} more")
    return tuple(shown)
