"""A size limit for the changes of an audit event, which are kept forever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

MAX_BYTES = 8192
"""The maximum size in bytes of an event's changes as PostgreSQL writes them."""

_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def stored_size(value: object) -> int:
    """Return an upper bound of the value's size in bytes when PostgreSQL writes it as ``jsonb``.

    Beyond ``MAX_BYTES``, the result only means that the value is too large.
    """
    text = json.dumps(value, ensure_ascii=False)
    size = len(text.encode())
    if size > MAX_BYTES:
        return size
    # PostgreSQL writes 1e300 with all its digits.
    written = json.loads(text, parse_float=lambda number: f"{Decimal(number):f}")
    return len(json.dumps(written, ensure_ascii=False).encode())


def digest(value: object) -> dict[str, Any]:
    """Return the size and the SHA-256 of the value's JSON without spaces and with sorted keys."""
    text = _canonical(value).encode()
    return {"size": len(text), "sha256": f"sha256:{hashlib.sha256(text).hexdigest()}"}


def fit(changes: Mapping[str, Any], *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Shorten the changes to ``max_bytes``: replace the longest values with their ``digest``.

    In a change ``[old, new]``, the old and the new value are replaced separately. If replacing values is not enough,
    returns the digest of all changes.
    """
    if stored_size(changes) <= max_bytes:
        return dict(changes)
    fitted = {name: list(value) if _is_pair(value) else value for name, value in changes.items()}
    parts: list[tuple[Any, Any]] = []  # pairs of a container and the key of a value in it
    for name, value in fitted.items():
        parts += [(value, 0), (value, 1)] if _is_pair(value) else [(fitted, name)]
    values = [container[key] for container, key in parts]
    sizes = [stored_size(value) for value in values]
    for container, key in parts:
        container[key] = None
    size = stored_size(fitted) - len("null") * len(parts) + sum(sizes)
    for number in sorted(range(len(parts)), key=lambda number: -sizes[number]):
        short = digest(values[number])
        saved = sizes[number] - stored_size(short)
        if size <= max_bytes or saved <= 0:
            break
        values[number] = short
        size -= saved
    if size > max_bytes:
        return digest(changes)
    for (container, key), value in zip(parts, values, strict=True):
        container[key] = value
    return fitted


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2
