"""Reading the JSON payload of a record without rounding its numbers, and writing canonical JSON (RFC 8785).

A number may have at most 1,000 digits and an exponent of ten within ±1,000, as in ``strict_json``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import rfc8785

from byteor_cloud.engine import strict_json
from byteor_cloud.engine.replay.work import RecordOverLimit
from byteor_cloud.engine.strict_json import JsonFault

MAX_DEPTH = 64
"""The maximum depth of nested objects and lists. The parser of every Python version can handle far more."""
MAX_BYTES = 16 * 1024 * 1024
MAX_VALUES = 1_000_000
"""A record with more bytes or values exceeds the work limit without being read."""

_LIMITS = strict_json.JsonLimits(
    max_bytes=MAX_BYTES, max_depth=MAX_DEPTH, max_values=MAX_VALUES, decimal=True, allow_nul=True
)
_MAX_SAFE = 2**53
_LONG_NUMBER = 50  # comparing one long number takes as long as comparing this many short ones


class MalformedPayload(ValueError):
    """The payload is not strict JSON, or the value has no canonical JSON; the text says why."""


def parse_payload(payload: bytes) -> Any:
    """Parse the JSON value of a record. Raises MalformedPayload, or RecordOverLimit if it is too large to be read."""
    try:
        return strict_json.read(payload, _LIMITS)
    except strict_json.MalformedJson as error:
        if error.fault in {JsonFault.BYTES, JsonFault.VALUES}:
            raise RecordOverLimit(error.message) from None
        raise MalformedPayload(f"not strict JSON: {error}") from None


def encode_payload(value: object) -> bytes:
    """Return the RFC 8785 JSON of a value.

    Raises MalformedPayload if it has none, if a number would be rounded, or if it nests deeper than ``MAX_DEPTH``.
    """
    try:
        return rfc8785.dumps(_exact(value, MAX_DEPTH))
    except MalformedPayload:
        raise
    except ValueError as error:
        raise MalformedPayload(f"not canonical: {error}") from None


def _exact(value: Any, depth: int) -> Any:
    """Copy a value with its numbers converted to the doubles that RFC 8785 writes. Raises MalformedPayload."""
    if isinstance(value, (dict, list)):
        if not depth:
            raise MalformedPayload(f"nested deeper than {MAX_DEPTH} levels")
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
            raise MalformedPayload("not canonical: a number has no equal double")
        return number
    return value


def count_nodes(value: Any) -> int:
    """Count the nodes of a JSON value: the value itself, and all members and items inside it.

    A long number counts as several nodes, because it takes longer to compare.
    """
    count = 0
    waiting = [value]
    while waiting:
        node = waiting.pop()
        count += 1
        if isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, Decimal) or (isinstance(node, int) and not -_MAX_SAFE < node < _MAX_SAFE):
            count += _LONG_NUMBER - 1
    return count
