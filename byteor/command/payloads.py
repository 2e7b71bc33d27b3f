"""The payloads of records as text."""

from __future__ import annotations

import json
from typing import Any, Final

from byteor.command.output import is_terminal

SHOWN: Final = 300  # characters on a terminal


def payload_text(shown: Any) -> str:
    """Return a payload as text in one line.

    ``shown`` has ``json``, ``payload_base64`` and ``truncated``. If ``payload_base64`` is not None, the text contains
    its bytes. Those that are not printable text are escaped, such as ``\\x00``. On a terminal, the text is shortened.
    """
    from base64 import b64decode  # noqa: PLC0415  only for payloads

    if shown.payload_base64 is not None:
        text = escape(b64decode(shown.payload_base64))
    else:
        text = json.dumps(shown.json, ensure_ascii=False, separators=(",", ":"))
    if is_terminal() and len(text) > SHOWN:
        return f"{text[:SHOWN]}…"
    return f"{text}…" if shown.truncated else text


def escape(payload: bytes) -> str:
    """Return bytes as printable text in one line. Bytes that are not UTF-8 or not printable are escaped."""
    text = payload.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
