"""Parses the JSON text of a plan strictly, and locates its first fault."""

from __future__ import annotations

from byteor.engine import strict_json

MAX_DEPTH = 64
"""The maximum depth of nesting; a deeper text is refused. A valid plan has at most five levels."""


class PlanSyntaxError(ValueError):
    """The text is not strict JSON; ``line`` and ``column`` (from 1) are those of its first fault."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.message = message


def parse_plan(text: str | bytes) -> object:
    """Parse strict JSON (see ``strict_json``) that nests at most ``MAX_DEPTH`` deep. Raises PlanSyntaxError."""
    try:
        value: object = strict_json.read(text, strict_json.JsonLimits(max_depth=MAX_DEPTH))
    except strict_json.MalformedJson as error:
        raise PlanSyntaxError(error.line, error.column, error.message) from None
    return value
