"""Reading a plan's JSON text more strictly than Python does, and saying where it is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from .diagnostics import shown

MAX_DEPTH = 64
"""Deeper nesting is refused; a valid plan nests five deep."""


class PlanSyntaxError(ValueError):
    """A text that no plan may be written in, with the line and column (from 1) of its first fault."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.message = message


class _RefusedError(Exception):
    """Raised inside the parser's hooks, which do not know the position."""


def parse_plan(text: str | bytes) -> object:
    """Parse JSON as UTF-8; any malformed text, and what JSON leaves undefined, raises ``PlanSyntaxError``.

    Refused beyond malformed JSON: a key twice in an object, NaN and numbers beyond a double, nesting
    deeper than ``MAX_DEPTH``, NUL and half surrogate pairs in strings.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text.encode().decode()
    except UnicodeDecodeError as error:
        raise _at(error.object[: error.start].decode(), error.start, "This is not UTF-8.") from None
    except UnicodeEncodeError as error:
        raise _at(error.object, error.start, "This is half a surrogate pair, no character.") from None
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_number(float),
            parse_int=_number(int),
        )
    except json.JSONDecodeError as error:
        raise _at(text, error.pos, f"{error.msg}.") from None
    except (_RefusedError, RecursionError):
        raise _first_fault(text) or _at(text, 0, _TOO_DEEP) from None
    if _is_too_deep(value) or _SUSPICIOUS.search(text):
        fault = _first_fault(text)
        if fault:
            raise fault
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedError
    return members


def _constant(name: str) -> object:
    raise _RefusedError


def _number[T](make: Callable[[str], T]) -> Callable[[str], T]:
    def read(digits: str) -> T:
        if math.isinf(float(digits)):
            raise _RefusedError
        return make(digits)

    return read


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        lists = [container for container in level if isinstance(container, list)]
        dicts = [container for container in level if isinstance(container, dict)]
        level = [item for container in lists for item in container]
        level += [item for container in dicts for item in container.values()]
    return any(isinstance(item, (list, dict)) for item in level)


_TOO_DEEP = f"Nested deeper than {MAX_DEPTH} levels."
_SUSPICIOUS = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]++|\\.)*+")(?P<colon>\s*+:)?|(?P<open>[{\[])|(?P<close>[}\]])|[^\s"{}\[\],:]++',
    re.DOTALL,
)


def _first_fault(text: str) -> PlanSyntaxError | None:
    """Find the first thing in otherwise well-formed JSON that a plan may not hold."""
    open_objects: list[set[str]] = []
    for token in TOKEN.finditer(text):
        word = token[0]
        if token["open"]:
            open_objects.append(set())
            if len(open_objects) > MAX_DEPTH:
                return _at(text, token.start(), _TOO_DEEP)
        elif token["close"]:
            open_objects.pop()
        elif token["string"]:
            string: str = json.loads(token["string"])
            if _UNSTORABLE.search(string):
                return _at(text, token.start(), "A string may hold neither NUL nor half a surrogate pair.")
            if token["colon"]:
                if string in open_objects[-1]:
                    return _at(text, token.start(), f"The key {shown(string)} comes twice in this object.")
                open_objects[-1].add(string)
        elif word.endswith(("NaN", "Infinity")) or (word[-1].isdigit() and math.isinf(float(word))):
            return _at(text, token.start(), f"{word[:20]} is no number that JSON readers agree on.")
    return None


def _at(text: str, offset: int, message: str) -> PlanSyntaxError:
    line_start = text.rfind("\n", 0, offset) + 1
    return PlanSyntaxError(text.count("\n", 0, offset) + 1, offset - line_start + 1, message)
