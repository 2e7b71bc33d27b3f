"""Reads the JSON payload of a record without rounding its numbers, and writes canonical JSON (RFC 8785).

A number may be at most 1,000 characters long and have an exponent of ten within ±1,000, as in ``strict_json``. If a
stage reads the JSON of a record with any other number, the record counts as exceeding its work limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from types import NoneType
from typing import Any

import rfc8785

from byteor.engine import strict_json
from byteor.engine.replay.work import RecordOverLimit
from byteor.engine.strict_json import JsonFault

MAX_DEPTH = 64
"""The maximum depth of nested objects and lists. Every supported Python version can parse far more."""
MAX_BYTES = 16 * 1024 * 1024
MAX_VALUES = 1_000_000
"""The maximum number of commas and opening brackets, as in ``JsonLimits``.

If a stage reads the JSON of a record with more of them, or with more than ``MAX_BYTES`` bytes, the record counts as
exceeding its work limit.
"""

_LIMITS = strict_json.JsonLimits(
    max_bytes=MAX_BYTES,
    max_depth=MAX_DEPTH,
    max_values=MAX_VALUES,
    decimal=True,
    allow_nul=True,
    allow_surrogates=True,
)
_MAX_SAFE = 2**53
_LONG_NUMBER = 50  # comparing one long number takes as long as comparing this many short ones


class DropReason(StrEnum):
    """Why a stage dropped a record."""

    NOT_JSON = "not_json"
    NOT_OBJECT = "not_object"
    DUPLICATE_NAME = "duplicate_name"
    TOO_DEEP = "too_deep"
    SCHEMA = "schema"
    NOT_CANONICAL = "not_canonical"
    FILTER = "filter"
    SAMPLE = "sample"
    CONVERSION = "conversion"
    OP = "op"


class MalformedPayload(ValueError):
    """Raised for a payload that is refused, or a value that ``encode_payload`` refuses. The message says why."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


_REASONS = {
    JsonFault.DUPLICATE_NAME: DropReason.DUPLICATE_NAME,
    JsonFault.DEPTH: DropReason.TOO_DEEP,
}
_NUMBER = re.compile("-?[0-9]")


def parse_payload(payload: bytes) -> Any:
    """Parse the JSON value of a record.

    Raises MalformedPayload, or RecordOverLimit if the payload exceeds ``MAX_BYTES``, ``MAX_VALUES`` or a limit of
    numbers.
    """
    try:
        return strict_json.read(payload, _LIMITS)
    except strict_json.MalformedJson as error:
        is_long_number = error.fault is JsonFault.NUMBER and _NUMBER.match(error.message)
        if error.fault in {JsonFault.BYTES, JsonFault.VALUES} or is_long_number:
            raise RecordOverLimit(error.message) from None
        reason = _REASONS.get(error.fault, DropReason.NOT_JSON)
        raise MalformedPayload(reason, f"not strict JSON: {error}") from None


_UNREAD = object()


class Message:
    """A record's payload between two stages. The parsed JSON value is kept, so stages must not change it."""

    __slots__ = ("_value", "payload")

    def __init__(self, payload: bytes, value: Any = _UNREAD) -> None:
        self.payload = payload
        self._value = value

    def value(self) -> Any:
        """Return the JSON value of the payload. Raises what ``parse_payload`` raises."""
        if self._value is _UNREAD:
            self._value = parse_payload(self.payload)
        return self._value


def _refuse(_value: object) -> None:
    raise TypeError


# The fast writer of canonical JSON. Python's encoder writes values for which ``_is_simple`` is true as RFC 8785 does.
_write = json.encoder.c_make_encoder(None, _refuse, json.encoder.encode_basestring, None, ":", ",", True, False, False)  # type: ignore[attr-defined]  # the stubs lack this function
_PLAIN = frozenset({str, bool, NoneType})


def encode_payload(value: object) -> bytes:
    """Return the RFC 8785 JSON of a value.

    Raises MalformedPayload if the value has no such JSON or nests deeper than ``MAX_DEPTH``, or if a number would be
    rounded.
    """
    try:
        if _is_simple(value, MAX_DEPTH):
            return "".join(_write(value, 0)).encode()
        return rfc8785.dumps(_exact(value, MAX_DEPTH))
    except MalformedPayload:
        raise
    except ValueError as error:  # raised by rfc8785, or by encode() for a lone surrogate
        detail = "a string has a lone surrogate" if isinstance(error, UnicodeError) else str(error)
        raise MalformedPayload(DropReason.NOT_CANONICAL, f"not canonical: {detail}") from None


def _is_ascii(name: object) -> bool:
    return type(name) is str and name.isascii()


def _is_simple(value: Any, depth: int) -> bool:
    """Return whether a value has only ASCII keys, short integers, and fractions that need no exponent.

    Return False also if the value nests deeper than ``depth`` levels.
    """
    if type(value) is dict:
        if not all(map(_is_ascii, value)):
            return False
        members: Iterable[Any] = value.values()
    elif type(value) is list:
        members = value
    else:
        return _is_simple([value], 1)
    if not depth:
        return False
    for member in members:
        kind = type(member)
        if kind in _PLAIN:
            continue
        if kind is int:
            if not -_MAX_SAFE < member < _MAX_SAFE:
                return False
        elif kind is float:
            if not 1e-4 <= abs(member) < 1e15 or member.is_integer():
                return False
        elif not ((kind is dict or kind is list) and _is_simple(member, depth - 1)):
            return False
    return True


def _exact(value: Any, depth: int) -> Any:
    """Copy a value with large integers and ``Decimal`` numbers as doubles. Raises MalformedPayload.

    The shortest decimal text of each such double is the same number.
    """
    if isinstance(value, (dict, list)):
        if not depth:
            raise MalformedPayload(DropReason.TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {name: _exact(member, depth - 1) for name, member in value.items()}
        return [_exact(item, depth - 1) for item in value]
    if isinstance(value, Decimal) or (type(value) is int and not -_MAX_SAFE < value < _MAX_SAFE):
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        # ``repr`` gives the same shortest digits as RFC 8785. An infinity differs from every number that can be read.
        if Decimal(repr(number)) != value:
            raise MalformedPayload(DropReason.NOT_CANONICAL, "not canonical: a number cannot be written exactly")
        return number
    return value


_SHORT = frozenset({str, bool, NoneType, float})


def count_nodes(value: Any) -> int:
    """Count the nodes of a JSON value: the value itself, and all members and items inside it.

    A long number counts as several nodes, because it takes longer to compare.
    """
    count = 1
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            count += len(node)
            waiting += [
                member
                for member in (node.values() if isinstance(node, dict) else node)
                if type(member) not in _SHORT and not (type(member) is int and -_MAX_SAFE < member < _MAX_SAFE)
            ]
        elif isinstance(node, Decimal) or (isinstance(node, int) and not -_MAX_SAFE < node < _MAX_SAFE):
            count += _LONG_NUMBER - 1
    return count


def has_decimal(value: Any) -> bool:
    """Return whether a JSON value contains a ``Decimal`` (see ``JsonLimits.decimal``)."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Decimal):
            return True
        if isinstance(node, (dict, list)):
            members = node.values() if isinstance(node, dict) else node
            waiting += [member for member in members if type(member) not in _SHORT]
    return False
