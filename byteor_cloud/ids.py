"""UUIDv7 (RFC 9562): ids that sort by creation time. Python's own implementation needs 3.14."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from datetime import datetime

_lock = threading.Lock()
_last = 0
_FORM = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def uuid7() -> uuid.UUID:
    """Return an id greater than all earlier ones of this process: 60 bits of time (1/4096 ms) and 62 random bits."""
    global _last  # noqa: PLW0603 - ids must grow even if the clock stands still or goes backwards
    with _lock:
        now = (time.time_ns() << 12) // 1_000_000
        _last = now = max(now, _last + 1)
    milliseconds, fraction = now >> 12, now & 0xFFF
    random = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random)


def smallest_uuid7(moment: datetime) -> uuid.UUID:
    """Return a lower bound for the UUIDv7 ids that are generated at ``moment`` or later."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


def read_id(text: str) -> uuid.UUID:
    """Parse an id. Unlike ``uuid.UUID``, accept only the form with four dashes. Raises ValueError."""
    if not _FORM.fullmatch(text):
        raise ValueError("Must be an id such as 01990a5c-7a40-7cc0-8000-3f2b7e5d1c04.")
    return uuid.UUID(text)
