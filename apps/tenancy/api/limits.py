"""Rate limits: one atomic statement a request; agents are counted in the process, so that a beat writes no counter."""

from __future__ import annotations

import threading
import time

from django.conf import settings
from django.db import connection

from apps.tenancy.access import Principal
from apps.tenancy.credentials import Family
from byteor_cloud.errors import TooManyRequests

WINDOW_S = 60
PER_MINUTE = {Family.USER: 1200, Family.ORGANIZATION: 1200, Family.AGENT: 600, Family.ENROLLMENT: 60}
SIGN_INS_PER_ADDRESS = 20

_lock = threading.Lock()
_local: dict[str, int] = {}
_local_minute = 0


def _count_shared(key: str, minute: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenancy_ratecounter (key, minute, count) VALUES (%s, %s, 1)"
            " ON CONFLICT (key) DO UPDATE SET minute = EXCLUDED.minute, count ="
            " CASE WHEN tenancy_ratecounter.minute = EXCLUDED.minute THEN tenancy_ratecounter.count + 1 ELSE 1 END"
            " RETURNING count",
            [key, minute],
        )
        count: int = cursor.fetchone()[0]
    return count


def _count_local(key: str, minute: int) -> int:
    global _local_minute  # noqa: PLW0603  one table a process and minute; a new minute forgets the old one whole
    with _lock:
        if minute != _local_minute:
            _local.clear()
            _local_minute = minute
        _local[key] = count = _local.get(key, 0) + 1
    return count


def count(key: str, limit: int, *, shared: bool = True) -> dict[str, str]:
    """Count one request of ``key``; the ``X-RateLimit-*`` headers. Raises TooManyRequests over ``limit`` a minute."""
    if not settings.CONFIG.rate_limit:
        return {}
    now = time.time()
    minute = int(now // WINDOW_S)
    used = (_count_shared if shared else _count_local)(key, minute)
    reset = (minute + 1) * WINDOW_S
    if used > limit:
        raise TooManyRequests(
            f"Over {limit} requests a minute; wait for the next minute.",
            retry_after=max(1, int(reset - now) + 1),
        )
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(limit - used),
        "X-RateLimit-Reset": str(reset),
    }


def count_request(principal: Principal, *, key: str | None = None) -> dict[str, str]:
    """Count a request of an authenticated caller."""
    family = principal.family
    return count(key or principal.caller, PER_MINUTE[family], shared=family is not Family.AGENT)
