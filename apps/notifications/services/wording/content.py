"""The content of a message, before it is formatted as an e-mail, a chat message or an entry in the bell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.urls import reverse

MAX_LINES = 20
"""The maximum number of lines below the sentence. The page to which the message links shows everything."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a message says: one sentence, then lines with details, and the path of one page with the link's label.

    A content has no markup, no secret and no payload. The sentence is at most 500 characters long.
    """

    sentence: str
    path: str
    action: str
    lines: tuple[str, ...] = ()


def page_path(table: str, pk: object) -> str:
    """Return the path of a row's page in the console. ``table`` is the label of the model, with an underscore."""
    return reverse(f"admin:{table}_change", args=[pk])


def format_time(moment: datetime) -> str:
    """Return a time in UTC, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def join_names(names: Sequence[str], count: int) -> str:
    """Return the names as an enumeration. ``count`` is the number of all things, of which ``names`` are the first."""
    more = [f"{count - len(names):,} more"] if count > len(names) else []
    *first, last = [*names, *more]
    return f"{', '.join(first)} and {last}" if first else last


def shorten(lines: list[str]) -> tuple[str, ...]:
    """Return the first lines, each with at most 300 characters, followed by the number of further lines."""
    shown = [line if len(line) <= 300 else f"{line[:299]}…" for line in lines[:MAX_LINES]]
    if more := len(lines) - len(shown):
        shown.append(f"{more:,} more")
    return tuple(shown)
