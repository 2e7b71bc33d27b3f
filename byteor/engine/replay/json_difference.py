"""The structural difference of two payloads: the members of the JSON values that differ, as JSON Pointers."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from itertools import takewhile, zip_longest
from typing import Any, Final

from byteor.engine.replay.payload import MalformedPayload, Message
from byteor.engine.replay.work import RecordOverLimit
from byteor.engine.strict_json import pointer_of

MAX_POINTERS = 64
"""If more members differ, their common parent stands for all of them."""
MAX_POINTER = 200
"""The maximum length of a pointer, without escapes. A longer pointer is shortened to that of an ancestor."""
_ITEM = "*"  # in a pointer: any item of an array
_MISSING: Final = object()
_NUMBERS = frozenset({int, float, Decimal})

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # neither PostgreSQL nor canonical JSON has a form for these characters

type _Path = tuple[str, ...]


class Kind(StrEnum):
    """What differs: an output record (changed as JSON or in its bytes, missing, extra), the stop, or a side effect."""

    CHANGED = "changed"
    MISSING = "missing"
    EXTRA = "extra"
    BYTES = "bytes"
    STOP = "stop"
    ACTION = "action"


def differing_payloads(before: bytes, after: bytes) -> tuple[Kind, list[str]]:
    """Return the kind of difference between two payloads that are not equal, and the members that differ."""
    members = differing_members(Message(before), Message(after))
    return (Kind.BYTES, []) if members is None else (Kind.CHANGED, members)


def differing_members(before: Message, after: Message) -> list[str] | None:
    """Return the JSON Pointers of the members that differ, sorted, with array indices written as ``*``.

    Numbers are compared exactly, by value. Returns None if a payload is not strict JSON, if it is too large to be
    parsed, or if the values are equal, so that only the bytes differ. A member whose pointer would be longer than
    ``MAX_POINTER``, or has a NUL or a lone surrogate, is represented by its closest ancestor without this problem.
    """
    try:
        sides = before.value(), after.value()
    except (MalformedPayload, RecordOverLimit):
        return None
    paths: set[_Path] = set()
    _collect(*sides, (), paths)
    paths = set(map(_storable, paths))
    if len(paths) > MAX_POINTERS:
        paths = {_common_parent(min(paths), max(paths))}
    return sorted(map(pointer_of, paths)) if paths else None


def _collect(before: Any, after: Any, path: _Path, found: set[_Path]) -> None:
    """Add the path of each value that differs. The recursion is bounded by the depth of a payload.

    Containers cannot be compared with ``==``, for which ``True`` and 1 are equal.
    """
    kind = type(before)
    if kind is not type(after):
        if not (kind in _NUMBERS and type(after) in _NUMBERS and before == after):
            found.add(path)
    elif kind is dict:
        for name, value in before.items():
            other = after.get(name, _MISSING)
            if type(value) is type(other) and type(value) is not dict and type(value) is not list:
                if value != other:
                    found.add((*path, name))
            else:
                _collect(value, other, (*path, name), found)
        found.update((*path, name) for name in after.keys() - before.keys())
    elif kind is list:
        path = (*path, _ITEM)
        for item, other in zip_longest(before, after, fillvalue=_MISSING):
            _collect(item, other, path, found)
    elif before != after:
        found.add(path)


def _common_parent(first: _Path, last: _Path) -> _Path:
    """Return the longest path that all paths between these two, in their order, begin with."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(name for name, _ in same)


def _storable(path: _Path) -> _Path:
    """Return the longest beginning of a path whose pointer is short enough and can be stored."""
    length = 0
    for depth, name in enumerate(path):
        length += 1 + len(name)
        if length > MAX_POINTER or _UNSTORABLE.search(name):
            return path[:depth]
    return path
