"""Rate limits. Requests of agents are counted in memory, because otherwise each heartbeat would update a row.

All other counts are stored in the database, or in memory while the disk is full or almost full.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection

from apps.tenancy.access import Principal
from apps.tenancy.credentials import Family
from apps.tenancy.models import RateCounter
from byteor_cloud.errors import TooManyRequests
from byteor_cloud.storage import space

WINDOW_S = 60
PER_MINUTE = {Family.USER: 1200, Family.ORGANIZATION: 1200, Family.AGENT: 600, Family.ENROLLMENT: 60}
SIGN_INS_PER_ADDRESS = 20
WRONG_CODES_PER_HOUR = 10

_lock = threading.Lock()
_local: dict[str, int] = {}
_local_minute = 0


@dataclass(frozen=True, slots=True)
class RateLimitUsage:
    """The number of requests counted in the minute of ``now``, and the limit."""

    used: int
    limit: int
    now: float

    @property
    def _reset(self) -> int:
        return (int(self.now // WINDOW_S) + 1) * WINDOW_S

    @property
    def headers(self) -> dict[str, str]:
        """The ``X-RateLimit-*`` headers of the response."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "X-RateLimit-Reset": str(self._reset),
        }

    def check(self) -> None:
        """Raise TooManyRequests if the limit is exceeded."""
        if self.used > self.limit:
            raise TooManyRequests(
                f"The rate limit of {self.limit} per minute is exceeded. Wait for the next minute.",
                retry_after=max(1, int(self._reset - self.now) + 1),
            )


def _add_shared(key: str, minute: int, amount: int) -> int:
    if space.is_low_for_database():
        return _add_local(key, int(time.time() // WINDOW_S), amount)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO tenancy_ratecounter (key, minute, count) VALUES (%s, %s, %s)"
                " ON CONFLICT (key) DO UPDATE SET minute = EXCLUDED.minute, count = EXCLUDED.count +"
                " CASE WHEN tenancy_ratecounter.minute = EXCLUDED.minute THEN tenancy_ratecounter.count ELSE 0 END"
                " RETURNING count",
                [key, minute, amount],
            )
            count: int = cursor.fetchone()[0]
    except DatabaseError as error:
        if not space.is_disk_error(error):
            raise
        # Read-only requests must work even if the disk is full.
        return _add_local(key, int(time.time() // WINDOW_S), amount)
    return count


def _read_shared(key: str, minute: int) -> int:
    return RateCounter.objects.filter(key=key, minute=minute).values_list("count", flat=True).first() or 0


def _add_local(key: str, minute: int, amount: int) -> int:
    global _local_minute  # noqa: PLW0603  the counters belong to the process, and to one minute
    with _lock:
        if minute != _local_minute:
            _local.clear()
            _local_minute = minute
        _local[key] = count = _local.get(key, 0) + amount
    return count


def clear_local() -> None:
    """Clear the counts of this process."""
    _local.clear()


def _usage(limit: int, count: Callable[[int], int]) -> RateLimitUsage | None:
    if not settings.CONFIG.rate_limit:
        return None
    now = time.time()
    return RateLimitUsage(count(int(now // WINDOW_S)), limit, now)


def count_sign_in(step: str, address: str | None) -> None:
    """Count a step of a sign-in. Raises TooManyRequests if the address exceeds its limit for that step.

    All IPv6 addresses of a /64 network share a limit, because a single machine can use all of them. Does nothing if
    rate limits are off.
    """
    found = None if address is None else ip_address(address)
    source = found if found is None or found.version == 4 else ip_network((found, 64), strict=False)
    usage = _usage(SIGN_INS_PER_ADDRESS, lambda minute: _add_shared(f"sign-in-{step}:{source}", minute, 1))
    if usage is not None:
        usage.check()


@contextmanager
def limit_wrong_codes(user_id: UUID) -> Iterator[None]:
    """Run the block, in which a person enters a machine's code. Count the code as wrong if the block raises an error.

    Raises TooManyRequests if the person has entered too many wrong codes in this hour. This limit applies even if other
    rate limits are off, because it protects short codes from guessing.
    """
    now = time.time()
    # The counter of the hour is stored under the hour's last minute, so that it is kept until the hour has passed.
    last_minute = int(now // 3600) * 60 + 59
    key = f"wrong-code:{user_id}"
    # Count first, so that concurrent requests cannot try more codes.
    if _add_shared(key, last_minute, 1) > WRONG_CODES_PER_HOUR:
        raise TooManyRequests(
            f"You entered {WRONG_CODES_PER_HOUR} wrong codes in this hour. Try again in the next hour.",
            retry_after=max(1, int((last_minute + 1) * 60 - now) + 1),
        )
    yield
    _add_shared(key, last_minute, -1)


def count_agent(agent_id: UUID | str) -> RateLimitUsage | None:
    """Count a request of an agent in this process. Returns None if rate limits are off.

    All keys of an agent share one count, so a new key does not reset the count. Call this only after verifying
    the key. Otherwise, anybody could use up the agent's limit.
    """
    return _usage(PER_MINUTE[Family.AGENT], lambda minute: _add_local(f"agent:{agent_id}", minute, 1))


def count_console(user_id: UUID) -> RateLimitUsage | None:
    """Count a person's console request, separately from API requests. Returns None if rate limits are off."""
    return _usage(PER_MINUTE[Family.USER], lambda minute: _add_shared(f"console:{user_id}", minute, 1))


def count_request(principal: Principal) -> RateLimitUsage | None:
    """Count a request of a recognized credential. Returns None if rate limits are off.

    For an enrollment token, only refused requests count (``count_refusal``); this function only reads their number.
    """
    key = principal.rate_limit_key or principal.caller
    match principal.family:
        case Family.AGENT:
            return count_agent(principal.actor.id)
        case Family.ENROLLMENT:
            # Add one for this request, so that it is refused if the number of earlier refusals has reached the limit.
            return _usage(PER_MINUTE[Family.ENROLLMENT], lambda minute: _read_shared(key, minute) + 1)
    return _usage(PER_MINUTE[principal.family], lambda minute: _add_shared(key, minute, 1))


def count_refusal(principal: Principal) -> None:
    """Count a refused request of an enrollment token. All tokens of an environment share the count.

    Does nothing for other families, and if rate limits are off.
    """
    if principal.family is Family.ENROLLMENT and principal.rate_limit_key and settings.CONFIG.rate_limit:
        _add_shared(principal.rate_limit_key, int(time.time() // WINDOW_S), 1)
