"""``manage.py migrate``: Django's command with short waits for locks, so that it does not stall a running service.

It refuses a database whose restore is unfinished.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, override

import psycopg
import structlog
from django.conf import settings
from django.core.management import CommandError
from django.core.management.commands import migrate
from django.db import Error, OperationalError, connection

from apps.operations.management import installation
from byteor_cloud.database.connections import database_settings, direct_connection

LOCK_POLL_S = 0.5  # seconds between attempts to take it
# Statements of other processes queue behind a migration that waits for a lock. So it gives up after a second, and lets
# them run before its next attempt. After ten minutes, it fails.
LOCK_TIMEOUT_S = 1
PAUSE_S = 2
ATTEMPTS = 200
logger = structlog.get_logger(__name__)


class Command(migrate.Command):
    """Migrates the database. If several processes start at the same time, one migrates and the others wait.

    The migrations that were applied before an attempt timed out remain applied. The next attempt continues after them.
    """

    stealth_options = ("is_restore",)

    @override
    def handle(self, *args: Any, is_restore: bool = False, **options: Any) -> None:
        """Run Django's command. ``is_restore`` is true if ``manage.py restore`` calls it, which holds the lock itself.

        Raises CommandError if a restore is unfinished, or if a table remains locked for all attempts.
        """
        if not is_restore:
            installation.check_restored()
        if options["plan"] or options["check_unapplied"]:
            super().handle(*args, **options)
            return
        # The migration lock belongs to a session, so it cannot be taken through a pooler. Closing the session releases
        # it.
        with connection.wrap_database_errors, direct_connection() as session:
            if not is_restore:
                _take_lock(session)
                installation.check_restored()  # again, because a restore may have held the lock until it was killed
            with _bypass_pooler(), _limit_lock_waits():
                self._migrate(*args, **options)

    def _migrate(self, *args: Any, **options: Any) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                super().handle(*args, **options)
            except OperationalError as error:
                cause = error.__cause__
                if not isinstance(cause, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
                    raise
                logger.warning("migration_waits_for_lock", attempt=attempt, retry_in_s=PAUSE_S)
                time.sleep(PAUSE_S)
            else:
                return
        raise CommandError(
            "the migration could not lock a table, because other transactions kept it locked. The migrations before it"
            " were applied. End the long transactions (pg_stat_activity lists them), and run this command again."
        )


def _take_lock(session: psycopg.Connection[Any]) -> None:
    # A statement that waits for the lock would have a snapshot, and CREATE INDEX CONCURRENTLY, in the process that has
    # the lock, would wait for the end of this statement. PostgreSQL would not detect this deadlock.
    while not session.execute("SELECT pg_try_advisory_lock(%s)", [installation.MIGRATION_LOCK]).fetchall()[0][0]:
        time.sleep(LOCK_POLL_S)


@contextmanager
def _bypass_pooler() -> Iterator[None]:
    """Connect to the database itself. A pooler would give each transaction another session, with its own timeouts."""
    if settings.CONFIG.database_direct_url is None:
        yield
        return
    pooled = dict(connection.settings_dict)
    direct = database_settings(settings.CONFIG.database_direct_url, threads=1)
    del direct["OPTIONS"]["pool"]
    connection.close()
    connection.settings_dict.update(direct)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(pooled)


@contextmanager
def _limit_lock_waits() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
    try:
        yield
    finally:
        # If the connection is lost, so is its timeout, and the error that ended it is already being raised.
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
