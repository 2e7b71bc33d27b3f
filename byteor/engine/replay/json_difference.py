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
MAX_CHARACTERS = 4096
"""If more members differ, or their pointers have more characters in total, their common parent stands for them."""
_ITEM = "*"  # in a pointer: any item of an array
_MISSING: Final = object()
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # the characters that PostgreSQL cannot store
_NUMBERS = frozenset({int, float, Decimal})

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
    """Return the kind of difference between two payloads that are not equal, and the members that differ.

    The kind is ``CHANGED`` with the result of ``differing_members``, or ``BYTES`` without members if that is None.
    """
    members = differing_members(Message(before), Message(after))
    return (Kind.BYTES, []) if members is None else (Kind.CHANGED, members)


def differing_members(before: Message, after: Message) -> list[str] | None:
    """Return the JSON Pointers of the members that differ, sorted, with array indices written as ``*``.

    Numbers are compared exactly, by value. If a name has a character that PostgreSQL cannot store (U+0000 or a
    surrogate), the member's parent stands for the member. Returns None if a payload is not strict JSON, if it exceeds a
    limit of ``payload.py``, or if the values are equal, so that only the bytes differ.
    """
    try:
        sides = before.value(), after.value()
    except (MalformedPayload, RecordOverLimit):
        return None
    found = _Paths()
    _collect(*sides, (), found)
    return found.pointers() if found.paths else None


class _Paths:
    """The paths of values that differ. More than ``MAX_POINTERS`` paths are replaced by their common parent."""

    __slots__ = ("_is_cut", "paths")

    def __init__(self) -> None:
        self.paths: set[_Path] = set()
        self._is_cut = False

    def add(self, path: _Path) -> None:
        self.paths.add(path)
        if len(self.paths) > MAX_POINTERS:
            self._cut()

    def pointers(self) -> list[str]:
        if self._is_cut:
            self._cut()
        found = sorted(map(pointer_of, self.paths))
        text = "".join(found)
        if len(text) <= MAX_CHARACTERS and not _UNSTORABLE.search(text):
            return found
        found = self._storable()
        if sum(map(len, found)) > MAX_CHARACTERS:
            self._cut()
            found = self._storable()
        while len(found[0]) > MAX_CHARACTERS:
            [path] = self.paths
            self.paths = {path[:-1]}
            found = self._storable()
        return found

    def _cut(self) -> None:
        self.paths = {_common_parent(min(self.paths), max(self.paths))}
        self._is_cut = True

    def _storable(self) -> list[str]:
        return sorted({pointer_of(_storable(path)) for path in self.paths})


def _storable(path: _Path) -> _Path:
    """Return the path up to the first name that PostgreSQL cannot store."""
    return tuple(takewhile(lambda name: not _UNSTORABLE.search(name), path))


def _collect(before: Any, after: Any, path: _Path, found: _Paths) -> None:
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
        for name in after.keys() - before.keys():
            found.add((*path, name))
    elif kind is list:
        path = (*path, _ITEM)
        for item, other in zip_longest(before, after, fillvalue=_MISSING):
            _collect(item, other, path, found)
    elif before != after:
        found.add(path)


def _common_parent(first: _Path, last: _Path) -> _Path:
    """Return the longest common beginning of two paths. All paths that are sorted between the two share it."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(name for name, _ in same)
