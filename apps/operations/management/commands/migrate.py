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
from django.db import Error, OperationalError, ProgrammingError, connection
from django.db.migrations.exceptions import InconsistentMigrationHistory, MigrationSchemaMissing
from django.db.migrations.loader import MigrationLoader

from apps.operations.management import installation
from byteor_cloud.database.connections import database_settings, direct_connection, try_lock

LOCK_POLL_S = 0.5  # seconds between attempts to take the migration lock
# Statements of other processes queue behind a migration that waits for a lock. So it gives up after a second, and lets
# them run before its next attempt. It fails if an attempt times out ten minutes or more after the first attempt did.
LOCK_TIMEOUT_S = 1
PAUSE_S = 2
GIVE_UP_S = 600
_LOCKED = (
    "the migration could not lock a table, because other transactions kept it locked. The migrations before it were"
    " applied. End the long transactions (pg_stat_activity lists them), and run this command again."
)
logger = structlog.get_logger(__name__)


class Command(migrate.Command):
    """Migrates the database. If several processes start at the same time, one migrates and the others wait.

    The migrations that were applied before an attempt timed out remain applied. The next attempt continues after them.
    """

    stealth_options = ("is_restore",)

    @override
    def handle(self, *args: Any, is_restore: bool = False, **options: Any) -> None:
        """Run Django's command. ``is_restore`` is true if ``manage.py restore`` calls it, which holds the lock itself.

        Raises CommandError, for example if a restore is unfinished or a table remains locked for ten minutes.
        """
        _check_target(options["app_label"], options["migration_name"])
        if not is_restore:
            installation.check_restored()
        if options["plan"] or options["check_unapplied"]:
            with _explained():
                super().handle(*args, **options)
            return
        # The migration lock belongs to a session, so it cannot be taken through a pooler. Closing the session releases
        # it.
        with connection.wrap_database_errors, direct_connection() as session:
            if not is_restore:
                _take_lock(session)
                installation.check_restored()  # again, because a restore may have held the lock until it was killed
            with _explained(), _bypass_pooler(), _limit_lock_waits():
                self._migrate(*args, **options)

    def _migrate(self, *args: Any, **options: Any) -> None:
        failed_at: float | None = None
        while True:
            try:
                super().handle(*args, **options)
            except OperationalError as error:
                cause = error.__cause__
                if not isinstance(cause, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
                    raise
                # The time is limited, and not the number of attempts, because an attempt that builds an index can
                # itself take ten minutes.
                now = time.monotonic()
                failed_at = now if failed_at is None else failed_at
                if now - failed_at >= GIVE_UP_S:
                    raise CommandError(_LOCKED) from error
                logger.warning("migration_waits_for_lock", retry_in_s=PAUSE_S)
                time.sleep(PAUSE_S)
            else:
                return


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors that only an operator can resolve into a CommandError."""
    try:
        yield
    except (ProgrammingError, MigrationSchemaMissing) as error:
        # Django raises MigrationSchemaMissing while it handles the error of the database.
        failed = error.__context__ if isinstance(error, MigrationSchemaMissing) else error
        denied = failed and failed.__cause__
        if not isinstance(denied, psycopg.errors.InsufficientPrivilege):
            raise
        reason = str(denied).partition("\n")[0]
        raise CommandError(
            f"the database user may not change the schema: {reason}. Run this command as the owner of the tables."
        ) from error
    except InconsistentMigrationHistory as error:
        raise CommandError(
            f"the database records migrations that contradict each other: {error} Restore a backup."
        ) from error


def _check_target(app: str | None, name: str | None) -> None:
    """Raise CommandError if the target is a migration that a squashed one replaces.

    Django would undo a part of the squashed migration, and no migration could run in that database afterwards.
    """
    if app is None or name is None:
        return
    known = MigrationLoader(None, replace_migrations=False).disk_migrations
    replaced = {each: new for new, migration in known.items() for each in migration.replaces}
    found = [each for each in known if each[0] == app and each[1].startswith(name)]
    if found and all(each in replaced for each in found):
        raise CommandError(f"{app}.{found[0][1]} was replaced by {replaced[found[0]][1]}, and cannot be a target")


def _take_lock(session: psycopg.Connection[Any]) -> None:
    # A statement that waits for the lock would have a snapshot, and CREATE INDEX CONCURRENTLY, in the process that has
    # the lock, would wait for the end of this statement. PostgreSQL would not detect this deadlock.
    is_waiting = False
    while not try_lock(session, installation.MIGRATION_LOCK):
        if not is_waiting:
            logger.info("migration_waits_for_other_process")
        is_waiting = True
        time.sleep(LOCK_POLL_S)


@contextmanager
def _bypass_pooler() -> Iterator[None]:
    """Connect to the database itself. A pooler may give each transaction another session, with its own timeouts."""
    if settings.CONFIG.database_direct_url is None:
        yield
        return
    pooled = dict(connection.settings_dict)
    direct = database_settings(settings.CONFIG.database_direct_url, threads=1)
    direct["OPTIONS"].pop("pool", None)
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
