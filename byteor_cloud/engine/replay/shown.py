"""Payloads as JSON data for people and clients: cut at 64 KiB, and as JSON where they are JSON."""

from __future__ import annotations

import base64
from typing import Any

from byteor_cloud.engine import strict_json

SHOWN_BYTES = 64 * 1024
_LIMITS = strict_json.JsonLimits(max_bytes=SHOWN_BYTES, max_values=SHOWN_BYTES)


def show_payload(payload: bytes, size: int | None = None) -> dict[str, Any]:
    """Return ``json``, ``payload_base64`` and ``truncated``. ``size`` is the size of a payload that is already cut.

    ``json`` is null if the payload is cut or is not JSON that every reader reads alike.
    """
    shown = payload[:SHOWN_BYTES]
    is_cut = len(shown) < (len(payload) if size is None else size)
    try:
        value = None if is_cut else strict_json.read(shown, _LIMITS)
    except strict_json.MalformedJson:
        value = None
    return {"json": value, "payload_base64": base64.b64encode(shown).decode(), "truncated": is_cut}
