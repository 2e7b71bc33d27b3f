"""Payloads as JSON data for the API and the console: cut at 64 KiB, and parsed where they are JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

from byteor.engine import strict_json

SHOWN_BYTES = 64 * 1024
_LIMITS = strict_json.JsonLimits(max_bytes=SHOWN_BYTES, max_values=SHOWN_BYTES)


def show_payload(payload: bytes, size: int | None = None, *, has_bytes: bool = True) -> dict[str, Any]:
    """Return ``json``, ``payload_base64`` and ``truncated``. If the payload is already cut, ``size`` is its full size.

    ``json`` is null if the payload is cut, is refused as JSON, or is ``null``. With ``has_bytes``, ``payload_base64``
    is always set. Without it, ``payload_base64`` is null if ``json`` is not null and writes each number with the same
    digits as the payload.
    """
    shown = payload[:SHOWN_BYTES]
    is_cut = len(shown) < (len(payload) if size is None else size)
    try:
        value = None if is_cut else strict_json.read(shown, _LIMITS)
    except strict_json.MalformedJson:
        value = None
    is_enough = not has_bytes and value is not None and _numbers(shown) == _numbers(json.dumps(value))
    return {
        "json": value,
        "payload_base64": None if is_enough else base64.b64encode(shown).decode(),
        "truncated": is_cut,
    }


def _numbers(text: bytes | str) -> list[str]:
    """Return the numbers of a JSON text as they are written, in their order."""
    found: list[str] = []
    json.loads(text, parse_float=found.append, parse_int=found.append)
    return found
