"""Reading a plan's JSON text strictly, and saying where it is wrong."""

from __future__ import annotations

from byteor_cloud.engine import strict_json

MAX_DEPTH = 64
"""Deeper nesting is refused; a valid plan nests five deep."""


class PlanSyntaxError(ValueError):
    """A text that no plan may be written in, with the line and column (from 1) of its first fault."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.message = message


def parse_plan(text: str | bytes) -> object:
    """Parse strict JSON (see ``strict_json``) as UTF-8, nested at most ``MAX_DEPTH`` deep. Raises PlanSyntaxError."""
    try:
        value: object = strict_json.read(text, strict_json.Limits(max_depth=MAX_DEPTH))
    except strict_json.Malformed as error:
        raise PlanSyntaxError(error.line, error.column, error.message) from None
    return value
