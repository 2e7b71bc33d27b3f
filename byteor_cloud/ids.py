"""UUIDv7 (RFC 9562): ids whose order is creation order. Python has its own only from 3.14 on."""

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
    """A new id, greater than every earlier one of this process: 60 bits of time (1/4096 ms), 62 random bits."""
    global _last  # noqa: PLW0603  the clock may stand still or step back; the ids may not
    with _lock:
        now = (time.time_ns() << 12) // 1_000_000
        _last = now = max(now, _last + 1)
    milliseconds, fraction = now >> 12, now & 0xFFF
    random = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random)


def smallest_uuid7(moment: datetime) -> uuid.UUID:
    """What no id that was made at ``moment`` or later is below."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


def read_id(text: str) -> uuid.UUID:
    """Read an id in its usual form, which is less than Python's UUID takes. Raises ValueError."""
    if not _FORM.fullmatch(text):
        raise ValueError("Must be an id such as 01990a5c-7a40-7cc0-8000-3f2b7e5d1c04.")
    return uuid.UUID(text)
