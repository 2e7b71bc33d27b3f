"""The structural difference of two payloads: the members of the JSON values that differ, as JSON Pointers."""

from __future__ import annotations

from decimal import Decimal
from itertools import takewhile, zip_longest
from typing import Any, Final

from byteor.engine.replay.payload import MalformedPayload, Message
from byteor.engine.replay.work import RecordOverLimit
from byteor.engine.strict_json import pointer_of

MAX_POINTERS = 64
"""If more members differ, their common parent stands for all of them."""
MAX_CHARACTERS = 4_096
"""If the paths of the members are longer in total, their common parent stands for all of them, too."""
_ITEM = "*"  # in a pointer: any item of an array
_MISSING: Final = object()
_NUMBERS = frozenset({int, float, Decimal})

type _Path = tuple[str, ...]


def differing_members(before: Message, after: Message) -> list[str] | None:
    """Return the JSON Pointers of the members that differ, sorted, with array indices written as ``*``.

    Numbers are compared exactly, by value. Returns None if a payload is not strict JSON, if it is too large to be
    parsed, or if the values are equal, so that only the bytes differ.
    """
    try:
        sides = before.value(), after.value()
    except (MalformedPayload, RecordOverLimit):
        return None
    paths: set[_Path] = set()
    _collect(*sides, (), paths)
    if len(paths) > MAX_POINTERS or sum(map(_length, paths)) > MAX_CHARACTERS:
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
    """Return the longest path, of at most ``MAX_CHARACTERS``, that all paths between these two in order begin with."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    path = tuple(name for name, _ in same)
    while _length(path) > MAX_CHARACTERS:
        path = path[:-1]
    return path


def _length(path: _Path) -> int:
    return sum(map(len, path)) + len(path)
