"""The JSON of a record: any RFC 8259 value with decimal numbers, and the RFC 8785 text of what that can carry.

No number is rounded when it is read. The bounds are those of ``strict_json``: 1,000 digits, and an exponent of ten
within ±1,000.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import rfc8785

from byteor_cloud.engine import strict_json
from byteor_cloud.engine.replay.work import RecordOverLimit
from byteor_cloud.engine.strict_json import Fault

MAX_DEPTH = 64
"""Objects and lists may nest this deep: far below what a parser's stack takes, on any Python."""
MAX_BYTES = 16 * 1024 * 1024
MAX_VALUES = 1_000_000
"""A longer record, or one of more values, is over the limit of work before it is read."""

_LIMITS = strict_json.Limits(
    max_bytes=MAX_BYTES, max_depth=MAX_DEPTH, max_values=MAX_VALUES, decimal=True, allow_nul=True
)
_MAX_SAFE = 2**53
_LONG_NUMBER = 50  # comparing with one takes as long as with so many others


class Malformed(ValueError):
    """A payload that is no strict JSON, or a value without canonical JSON; the text says why."""


def parse(payload: bytes) -> Any:
    """Read a record's JSON value. Raises Malformed, or RecordOverLimit when it is too large to be read."""
    try:
        return strict_json.read(payload, _LIMITS)
    except strict_json.Malformed as error:
        if error.fault in {Fault.BYTES, Fault.VALUES}:
            raise RecordOverLimit(error.message) from None
        raise Malformed(f"not strict JSON: {error}") from None


def canonical(value: object) -> bytes:
    """Write the RFC 8785 JSON of a value. Raises Malformed when it has none, which is also so for a number that its
    RFC 8785 text does not equal, and for nesting over ``MAX_DEPTH``.
    """
    try:
        return rfc8785.dumps(_exact(value, MAX_DEPTH))
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"not canonical: {error}") from None


def _exact(value: Any, depth: int) -> Any:
    """Copy a value, its numbers as the doubles that RFC 8785 writes."""
    if isinstance(value, (dict, list)):
        if not depth:
            raise Malformed(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, dict):
            return {name: _exact(member, depth - 1) for name, member in value.items()}
        return [_exact(item, depth - 1) for item in value]
    if isinstance(value, Decimal) or (type(value) is int and not -_MAX_SAFE < value < _MAX_SAFE):
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        # ``repr`` gives the same shortest digits as RFC 8785. An infinity equals no number that was read.
        if Decimal(repr(number)) != value:
            raise Malformed("not canonical: a number that no double is equal to")
        return number
    return value


def count_nodes(value: Any) -> int:
    """Count the nodes of a JSON value: itself and every member and item below it; a long number counts for many."""
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
