"""Payload JSON that means the same everywhere: I-JSON (RFC 7493), so that RFC 8785 can write it again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

import rfc8785

MAX_DEPTH = 64
"""Objects and arrays may nest this deep: far below what a parser's stack takes, on any Python."""

_MAX_INT = 2**53 - 1
_EXPONENT_FROM = 1e21  # RFC 8785 writes a double below this without an exponent


class Malformed(ValueError):
    """Bytes or a value that strict JSON refuses; the text says why."""


def parse(payload: bytes) -> Any:
    """A JSON value from UTF-8 bytes. Refused (``Malformed``): a duplicate key, NaN or Infinity, a lone
    surrogate, an integer beyond ±(2^53 - 1) (also as ``1e18``), a float beyond a double's range, a depth
    over ``MAX_DEPTH``, a byte order mark.
    """
    try:
        value = json.loads(
            payload.decode(),
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except Malformed:
        raise
    except RecursionError:
        raise Malformed(f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from None
    _check(value)
    if b"\\u" in payload:  # only an escape can bring a lone surrogate into a UTF-8 text
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Malformed("a lone surrogate") from None
    return value


def canonical(value: object) -> bytes:
    """The RFC 8785 JSON of a value; ``Malformed`` when it has none."""
    _check(value)
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # it refuses what is no JSON value itself
    except ValueError as error:
        raise Malformed(str(error)) from None


def _check(value: object) -> None:
    """Refuse what canonical JSON could write but ``parse`` would not read again, so that one stage's output
    is another's input: a value nested too deep, a double that is written as an integer beyond 2^53 - 1.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(node, float) and _MAX_INT < abs(node) < _EXPONENT_FROM for node in level):
            raise Malformed("an integer beyond ±(2^53 - 1)")
        nodes = [node for node in level if isinstance(node, dict | list)]
        if not nodes:
            return
        level = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
    raise Malformed(f"nested deeper than {MAX_DEPTH}")


def pointer(path: Iterable[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a path of keys and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _integer(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > _MAX_INT:
        raise Malformed("an integer beyond ±(2^53 - 1)")
    return value


def _float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise Malformed("a number beyond the range of a double")
    return value


def _constant(text: str) -> NoReturn:
    raise Malformed(f"{text} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Malformed("a duplicate key")
    return value
