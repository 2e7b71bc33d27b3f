"""The structural difference of two payloads: the members of the JSON values that differ, as JSON Pointers."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import zip_longest
from typing import Any, Final

from byteor.engine.replay.payload import MalformedPayload, parse_payload
from byteor.engine.replay.work import RecordOverLimit
from byteor.engine.strict_json import pointer_of

MAX_POINTERS = 64
"""If more members differ, their common parent stands for all of them."""
_ITEM = "*"  # in a pointer: any item of an array
_MISSING: Final = object()
_NUMBERS = frozenset({int, float, Decimal})

type _Path = tuple[str, ...]


def differing_members(before: bytes, after: bytes) -> list[str] | None:
    """Return the JSON Pointers of the members that differ, sorted, with array indices written as ``*``.

    Numbers are compared by value, exactly. Returns None if a payload is not strict JSON, if it is too large to be
    parsed, or if the values are equal, so that only the bytes differ.
    """
    try:
        sides = parse_payload(before), parse_payload(after)
    except (MalformedPayload, RecordOverLimit):
        return None
    paths: set[_Path] = set()
    for path in _differences(*sides, ()):
        paths.add(path)
        if len(paths) > MAX_POINTERS:
            paths = {_common_parent(_differences(*sides, ()))}
            break
    return sorted(map(pointer_of, paths)) if paths else None


def _differences(before: Any, after: Any, path: _Path) -> Iterator[_Path]:
    """Yield the path of each member that differs. The recursion is bounded by the depth of a payload."""
    kind = type(before)
    if kind is not type(after):
        if not (kind in _NUMBERS and type(after) in _NUMBERS and before == after):
            yield path
    elif kind is dict:
        # The containers themselves cannot be compared with ``==``, for which ``True`` and 1 are equal.
        for name, value in before.items():
            yield from _differences(value, after.get(name, _MISSING), (*path, name))
        for name in after.keys() - before.keys():
            yield (*path, name)
    elif kind is list:
        for item, other in zip_longest(before, after, fillvalue=_MISSING):
            yield from _differences(item, other, (*path, _ITEM))
    elif before != after:
        yield path


def _common_parent(paths: Iterator[_Path]) -> _Path:
    common = next(paths)
    for path in paths:
        length = next((at for at, (one, other) in enumerate(zip(common, path, strict=False)) if one != other), None)
        common = common[: min(len(common), len(path))] if length is None else common[:length]
    return common
