"""The locks of a running backup: only one backup runs at a time, and no blob is deleted while it runs.

They are session locks, so they end with the backup's connection, even if its process is killed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.database.connections import Connection, direct_connection, try_lock

# There are two locks, because a deletion of blobs holds the second one shared for a moment. It must not look like
# another backup.
_BACKUP_LOCK = 7_226_190_010  # the ids of advisory locks: arbitrary, but equal in all processes
_REMOVAL_LOCK = 7_226_190_011
_HOLDER = """
SELECT a.application_name, a.pid, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32) + l.objid::bigint = %s
"""


@contextmanager
def backup_lock() -> Iterator[Connection]:
    """Hold both locks while the block runs, and yield the session that holds them.

    Waits for deletions of blobs that are in progress. Raises BackupError if a backup is running, with a
    description of the holder unless it has just ended.
    """
    with connection.wrap_database_errors, direct_connection() as session:
        name = f"byteor-cloud backup on {socket.gethostname()[:24]}, process {os.getpid()}"
        session.execute("SELECT set_config('application_name', %s, false)", [name])
        session.execute("SET idle_session_timeout = 0")  # copying the blobs may take hours
        if not try_lock(session, _BACKUP_LOCK):
            holder = session.execute(_HOLDER, [_BACKUP_LOCK]).fetchone()
            detail = f" ({holder[0]}, database session {holder[1]}, since {holder[2]} UTC)" if holder else ""
            raise BackupError(f"another backup of this installation is running{detail}: wait until it ends")
        session.execute("SELECT pg_advisory_lock(%s)", [_REMOVAL_LOCK])
        yield session


def check_held(session: Connection) -> None:
    """Raise OperationalError if the session was closed. Blobs may then have been deleted during the backup."""
    session.execute("SELECT 1")


def may_delete_blobs() -> bool:
    """Return whether no backup is running. If True, none starts to copy blobs until the caller's transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock_shared(%s)", [_REMOVAL_LOCK])
        return bool(cursor.fetchone()[0])
