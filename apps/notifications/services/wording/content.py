"""The content of a message, before it is formatted as an e-mail, a chat message or an entry in the bell."""

from __future__ import annotations

from dataclasses import dataclass

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


def shorten(lines: list[str]) -> tuple[str, ...]:
    """Return the first lines, each with at most 300 characters, followed by the number of further lines."""
    shown = [line if len(line) <= 300 else f"{line[:299]}…" for line in lines[:MAX_LINES]]
    if more := len(lines) - len(shown):
        shown.append(f"{more:,} more")
    return tuple(shown)
