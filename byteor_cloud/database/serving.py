"""The lock that server processes share while they use the database, and that a restore takes exclusively.

Otherwise a server that survived the loss of its database would run the jobs of the restored one, and send its offers,
before the restore has settled them.
"""

from __future__ import annotations

from typing import Any

import psycopg

from byteor_cloud.database.connections import try_lock

_LOCK = 7_226_190_012  # the id of an advisory lock: arbitrary, but equal in all processes


def share(session: psycopg.Connection[Any]) -> None:
    """Share the lock with other servers until the session ends. Raises OperationalError while a restore has it."""
    if not try_lock(session, _LOCK, shared=True):
        raise psycopg.OperationalError("a restore of the database is running")


def take(session: psycopg.Connection[Any]) -> bool:
    """Take the lock alone until the session ends. Returns False if a server uses the database."""
    return try_lock(session, _LOCK)
