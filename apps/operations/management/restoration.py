"""Restores a backup's blobs, database and master key. Then stops work that may have been done after the backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader

from apps.artifacts.services import restored as artifacts
from apps.operations.management import installation
from apps.operations.services import restores
from apps.tenancy.services import vault
from apps.tenancy.services.ledger import Verification
from byteor_cloud.backup import restoring, unfinished
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import Manifest
from byteor_cloud.backup.programs import check_dump, find_program, server_major
from byteor_cloud.backup.reading import StoredBackup
from byteor_cloud.backup.unfinished import Unfinished
from byteor_cloud.config import Config, store_key
from byteor_cloud.database import serving
from byteor_cloud.database.connections import Connection, direct_connection, try_lock
from byteor_cloud.storage import data_folders

_MOST_NAMED = 20


def restore(
    stored: StoredBackup,
    *,
    passphrase: str | None,
    use_existing_blobs: bool,
    report: Callable[[str], None],
    on_blob: Callable[[int], None],
) -> restores.Settled:
    """Restore the backup, and settle work that must not continue. If an earlier attempt was interrupted, completes it.

    ``report`` is called with lines about the progress. ``on_blob`` is called after each blob that the backup contains,
    with the number of these blobs. Until the whole restore is complete, servers refuse to start with this database.
    Raises BackupError, CommandError, DomainError, OSError or a database error.
    """
    manifest = stored.manifest
    current: Config = settings.CONFIG
    restore = Unfinished(manifest.name, stored.manifest_hash)
    with _locked() as session:
        key = restoring.choose_key(
            manifest,
            configured=current.master_key,
            configured_ids=vault.own_key_ids(),
            passphrase=passphrase,
            key_id=vault.key_id,
        )
        _check_versions(manifest, server_major(session))
        has_data = _check_empty(restore, use_existing_blobs=use_existing_blobs)
        installation.create_folders()
        with data_folders.scratch_folder() as folder:
            dump = folder / "database.dump"
            if not has_data:
                report("checking the database dump")
                with dump.open("wb") as file:
                    stored.copy_dump(file)
                check_dump(dump, server_major(session))
                unfinished.mark(restore)
            whole = manifest.blob_count - manifest.faulty_blobs
            lost = restoring.copy_blobs(stored, on_done=lambda _: on_blob(whole))
            if key is not None and isinstance(current.master_key, Path):
                store_key(key, current.master_key)
            if not has_data:
                report("restoring the database")
                restoring.restore_dump(session, dump)
        for blob in lost[:_MOST_NAMED]:
            report(f"the blob {blob.sha256} was already {blob.fault} when the backup was made")
        if len(lost) > _MOST_NAMED:
            report(f"in total, {len(lost)} blobs were already missing or altered when the backup was made")
        call_command("migrate", interactive=False, verbosity=0, is_restore=True)
        vault.ensure_key()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")  # a pooler may have set the timeout of the API
            backup = restores.Backup(manifest.name, manifest.created_at, stored.manifest_hash)
            settled = restores.settle(backup)
            unfinished.remove_mark()
    return settled


def verify(manifest: Manifest, *, report: Callable[[str], object]) -> int:
    """Verify the restored ledgers against the backup's, and repeat a replay. Returns the number of faults.

    ``report`` is called with a line for each fault, for each intact ledger, and for the outcome of the replay.
    """
    faults = 0
    for head in manifest.ledgers:
        verification = Verification(
            None if head.organization_id is None else UUID(head.organization_id), known={head.seq: head.hash}
        )
        name = "the installation" if head.organization_id is None else f"organization {head.organization_id}"
        found = [str(fault) for fault in verification.faults()]
        for fault in found:
            report(f"{name}: {fault}")
        faults += len(found)
        if not found:
            report(f"the ledger of {name} is intact and contains event {head.seq} of the backup ({head.hash})")
    try:
        repeated = artifacts.repeat_replay()
    except Exception as error:  # noqa: BLE001,RUF100  reported, because everything else is restored
        report(f"repeating a replay failed: {type(error).__name__}: {error}")
        return faults + 1
    if repeated is None:
        report("there is no completed dry run to repeat")
    elif repeated.is_equal:
        report(
            f"the replay {repeated.replay_id} was repeated, and its output has the same digests as the stored result"
        )
    else:
        report(f"the replay {repeated.replay_id} was repeated, and its output differs from the stored result")
        faults += 1
    return faults


@contextmanager
def _locked() -> Iterator[Connection]:
    """Open a session that holds the migration lock, so that no server starts to migrate the empty database.

    Raises BackupError if another command migrates or restores the database, or if servers or workers use it.
    """
    with connection.wrap_database_errors, direct_connection() as session:
        if not try_lock(session, installation.MIGRATION_LOCK):
            raise BackupError("another command is restoring or migrating this database")
        session.execute("SET idle_session_timeout = 0")  # copying the blobs may take hours
        restoring.stop_earlier(session)
        if not serving.take(session):
            raise BackupError("servers or workers are connected to this database: stop them, and try again")
        yield session


def _check_versions(manifest: Manifest, major: int) -> None:
    """Raise BackupError if this release or the database server is too old for the backup, or a program is missing."""
    loader = MigrationLoader(None)
    known = {f"{app}.{name}" for app, name in loader.disk_migrations}
    known |= {f"{app}.{name}" for each in loader.disk_migrations.values() for app, name in each.replaces}
    if newer := sorted(set(manifest.migrations) - known):
        raise BackupError(
            f"the backup was made by release {manifest.product_version}, whose database schema is newer than this "
            f"release's (it has the migration {newer[0]}): restore it with that release or a newer one"
        )
    if manifest.postgresql > major:
        raise BackupError(
            f"the backup was made with PostgreSQL {manifest.postgresql}, but the database server is PostgreSQL {major}"
        )
    find_program("pg_restore", major)


def _check_empty(restore: Unfinished, *, use_existing_blobs: bool) -> bool:
    """Return whether an earlier attempt of this restore has restored the database already.

    Raises BackupError if the installation contains anything else. With ``use_existing_blobs``, a bucket may contain
    blobs.
    """
    earlier, has_tables = unfinished.read(), unfinished.has_tables()
    if earlier == restore:
        return has_tables
    if earlier is not None:
        raise BackupError(
            f"the restore of the backup {earlier.backup} (manifest {earlier.manifest}) into this database is "
            "unfinished: complete it, or restore into a new data folder or an empty database"
        )
    if has_tables:
        raise BackupError("the database is not empty. Restore into a new data folder or an empty database")
    bucket = settings.CONFIG.s3_bucket
    if (bucket is not None and use_existing_blobs) or not restoring.has_blobs():
        return False
    if bucket is None:
        raise BackupError(
            f"the folder {settings.CONFIG.data_dir / 'artifacts'} is not empty. Restore into a new data folder"
        )
    raise BackupError(
        f"the bucket {bucket} contains blobs. If another installation uses it, choose another bucket, because each "
        "installation deletes the blobs that it does not know. If the bucket survived the loss of the database, use "
        "--use-existing-blobs"
    )
