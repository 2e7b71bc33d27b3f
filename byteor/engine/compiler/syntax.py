"""A strict parser for the JSON text of a plan, which reports the position of a fault."""

from __future__ import annotations

from byteor.engine import strict_json

MAX_DEPTH = 64
"""The maximum nesting depth. Deeper text is refused. A valid plan has at most five levels."""


class PlanSyntaxError(ValueError):
    """Raised for text that is not strict JSON or exceeds a limit.

    ``line`` and ``column`` count from 1 and locate the fault.
    """

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.message = message


def parse_plan(text: str | bytes) -> object:
    """Parse strict JSON (see ``strict_json``) with at most ``MAX_DEPTH`` levels. Raises PlanSyntaxError."""
    try:
        value: object = strict_json.read(text, strict_json.JsonLimits(max_depth=MAX_DEPTH))
    except strict_json.MalformedJson as error:
        raise PlanSyntaxError(error.line, error.column, error.message) from None
    return value
