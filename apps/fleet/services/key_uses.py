"""The time at which an agent's key was last used, stored for many keys in one statement.

The requests that agents send continually do not write it themselves: a heartbeat would need a second statement.
"""

from __future__ import annotations

import threading
import time

import structlog
from django.db import DatabaseError
from gevent.monkey import is_module_patched

from apps.fleet.services.verified_keys import KnownKey
from byteor_cloud.concurrency import deadline
from byteor_cloud.database.connections import FrequentStatement
from byteor_cloud.storage import space

PRECISION_S = 60.0
PAUSE_S = 1.0  # in which the keys of one statement are collected
_MOST_KEYS = 2000  # of one statement
_LIMIT_S = 10.0

_statement = FrequentStatement("""
WITH stored AS (
    UPDATE fleet_agentkey SET last_used_at = now() WHERE id IN (
        SELECT id FROM fleet_agentkey
        WHERE digest = ANY(%s::text[]) AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING 1)
SELECT count(*) FROM stored
""")
logger = structlog.get_logger(__name__)


class KeyUses:
    """The keys of this process whose last use is not stored yet."""

    def __init__(self) -> None:
        self._due: list[str] = []
        self._lock = threading.Lock()

    def note(self, key: KnownKey) -> None:
        """Note that the key is used now. In an event loop this writes nothing itself, and is stored soon afterwards."""
        now = time.monotonic()
        if now < key.use_due_at:
            return
        key.use_due_at = now + PRECISION_S
        with self._lock:
            self._due.append(key.digest)
            is_first = len(self._due) == 1
        if not is_module_patched("threading"):
            self.store()
        elif is_first:
            threading.Timer(PAUSE_S, self.store).start()

    def store(self) -> None:
        """Store the noted uses. Uses that cannot be stored are dropped: the keys will be used again."""
        with self._lock:
            due, self._due = self._due, []
        if space.is_low_for_database():
            return
        try:
            with deadline.limited(_LIMIT_S):
                for start in range(0, len(due), _MOST_KEYS):
                    # Digests are hexadecimal, so that they need no quotes in PostgreSQL's text form of an array.
                    _statement.run(f"{{{','.join(due[start : start + _MOST_KEYS])}}}")
        except DatabaseError as error:
            logger.warning("key_uses_lost", keys=len(due), error=str(error).partition("\n")[0])


key_uses = KeyUses()
