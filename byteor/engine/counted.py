"""Counts with nouns, for texts that people read."""

from __future__ import annotations


def count_of(number: int, what: str) -> str:
    """Return a number with a noun, which gets an "s" unless the number is 1."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
