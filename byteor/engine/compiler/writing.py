"""Formats a plan as readable JSON. Declared members come first, in the order of their declaration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .diagnostics import JsonObject
from .plan import PLAN

_WIDTH = 96


def write_plan(plan: object) -> str:
    """Format a plan as JSON text that parses to the same value and ends with a newline.

    ``plan`` may be any JSON value, because a draft may contain an invalid plan.
    """
    return "\n".join([*_lines(plan, PLAN.schema(), inline=False), ""])


def _lines(value: object, schema: JsonObject, *, inline: bool = True) -> list[str]:
    """Return the lines of a value, indented as at the top level. ``schema`` determines the order of the members."""
    if not isinstance(value, (dict, list)) or not value:
        return [json.dumps(value, ensure_ascii=False)]
    if isinstance(value, dict):
        begin, end = "{}"
        parts = [_named(name, _lines(value[name], below)) for name, below in _ordered(value, schema)]
    else:
        begin, end = "[]"
        parts = [_lines(item, schema.get("items", {})) for item in value]
        # A list of stages or connections is easier to read with one item per line.
        inline = inline and not any(isinstance(item, (dict, list)) for item in value)
    if inline and all(len(part) == 1 for part in parts) and sum(len(part[0]) + 2 for part in parts) <= _WIDTH:
        return [begin + ", ".join(part[0] for part in parts) + end]
    for part in parts[:-1]:
        part[-1] += ","
    return [begin, *(f"  {line}" for part in parts for line in part), end]


def _named(name: str, lines: list[str]) -> list[str]:
    return [f"{json.dumps(name, ensure_ascii=False)}: {lines[0]}", *lines[1:]]


def _ordered(members: Mapping[str, Any], schema: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    known: Mapping[str, JsonObject] = schema.get("properties", {})
    yield from ((name, below) for name, below in known.items() if name in members)
    yield from ((name, {}) for name in members if name not in known)
