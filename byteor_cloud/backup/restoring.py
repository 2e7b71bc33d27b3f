"""The parts of a restore that do not depend on the tables: the choice of the key, the blobs and the database dump."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path

from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import ListedBlob, Manifest
from byteor_cloud.backup.passphrase import decrypt_key
from byteor_cloud.backup.programs import connection_environment, find_program, first_error, server_major
from byteor_cloud.backup.reading import AlteredError, CheckedReader, StoredBackup
from byteor_cloud.backup.targets import PIECE
from byteor_cloud.config import PREFIX, Key
from byteor_cloud.database.connections import Connection
from byteor_cloud.errors import InsufficientStorage, NotStored, Unavailable
from byteor_cloud.storage import blobs

_BATCH = 256  # blobs that must all be copied before the next ones are started
_APPLICATION = "byteor-cloud restore"  # the name of pg_restore's session
_SESSIONS = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s
"""
_POLL_S = 0.1


def choose_key(
    manifest: Manifest,
    *,
    configured: Key,
    configured_ids: list[str],
    passphrase: str | None,
    key_id: Callable[[bytes], str],
) -> bytes | None:
    """Return the backup's master key if it must be stored, or None if it is already configured.

    ``configured_ids`` are the ids of the configured keys. Raises BackupError if the passphrase is wrong, or if this
    installation would not have the key that the backup's secrets are encrypted under.
    """
    wanted = manifest.master_key_id
    key = None
    if passphrase is not None and manifest.master_key is not None:
        key = decrypt_key(manifest.master_key, wanted, passphrase)
        if key_id(key) != wanted:
            raise BackupError("the master key in this backup does not have the id in the manifest")
    if wanted in configured_ids:
        return None
    if not isinstance(configured, Path):
        raise BackupError(
            f"the secrets in this backup are encrypted with the master key {wanted}, but {PREFIX}MASTER_KEY is the"
            f" key {configured_ids[0]}. Set {PREFIX}MASTER_KEY to the key {wanted}. If that key is lost, but the backup"
            " contains it, manage.py backup --extract-master-key writes it to a file"
        )
    if manifest.master_key is None:
        raise BackupError(
            f"this backup does not contain the master key {wanted}: set {PREFIX}MASTER_KEY to it, or copy the file "
            f"secrets/master_key of the old data folder to {configured}"
        )
    if key is None:
        raise BackupError(
            f"the master key in this backup is encrypted: use --passphrase-file or {PREFIX}BACKUP_PASSPHRASE"
        )
    return key


def has_blobs() -> bool:
    """Return whether the blob store contains blobs."""
    return any(blobs.list_stored(folder) for folder in range(256))


def copy_blobs(backup: StoredBackup, *, on_done: Callable[[ListedBlob], None]) -> list[ListedBlob]:
    """Copy the backup's blobs to the blob store and check each hash. Blobs with a valid copy there are skipped.

    Returns the listed blobs that the backup lacks, because the old installation had no valid copy. Calls ``on_done``
    with each other blob, in this thread. Raises BackupError if a blob is missing or altered, or cannot be stored.
    """
    lost = []
    with ThreadPoolExecutor(backup.target.concurrency, "restore") as pool:
        try:
            for batch in batched(backup.list_blobs(), _BATCH):
                lost += [blob for blob in batch if blob.fault is not None]
                whole = [blob for blob in batch if blob.fault is None]
                for blob, _ in zip(whole, pool.map(lambda blob: _copy(backup, blob), whole), strict=True):
                    on_done(blob)
        finally:
            pool.shutdown(cancel_futures=True)
    return lost


def _copy(backup: StoredBackup, blob: ListedBlob) -> None:
    content_hash = f"sha256:{blob.sha256}"
    try:
        if _is_stored(content_hash, blob):
            return
        with blobs.receive(blob.sha256) as file:
            backup.copy_blob(blob, _Appended(file))  # type: ignore[arg-type]  # only ``write`` is called
            blobs.put_file(content_hash, file)
    except (InsufficientStorage, Unavailable) as error:
        raise BackupError(f"the blob store cannot be used: {error.detail}") from error
    except OSError as error:
        raise BackupError(f"the blob store cannot be used: {error.strerror or type(error).__name__}") from error


def _is_stored(content_hash: str, blob: ListedBlob) -> bool:
    if not blobs.is_stored(content_hash):
        return False
    try:
        with blobs.read(content_hash) as stored:
            checked = CheckedReader(stored, content_hash, blob.sha256)
            while checked.read(PIECE):
                pass
    except (AlteredError, NotStored):
        return False
    return True


class _Appended:
    """A received file with the only method of files that ``StoredBackup.copy_blob`` calls."""

    def __init__(self, file: blobs.ReceivedFile) -> None:
        self._file = file

    def write(self, piece: bytes) -> int:
        self._file.append(piece)
        return len(piece)


def stop_earlier(session: Connection) -> None:
    """Roll back the pg_restore of an earlier attempt, which keeps running if only its parent process was killed.

    Otherwise it might commit during the new attempt. The caller must hold the migration lock.
    """
    while found := session.execute(_SESSIONS, [_APPLICATION]).fetchall():
        for (pid,) in found:
            session.execute("SELECT pg_terminate_backend(%s)", [pid])
        time.sleep(_POLL_S)


def restore_dump(session: Connection, dump: Path) -> None:
    """Restore the dump into the session's database, in one transaction. Raises BackupError with pg_restore's error."""
    program = find_program("pg_restore", server_major(session))
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    with connection_environment(session) as environment:
        result = subprocess.run(  # noqa: S603 - our own program and arguments
            [program, *options, "--dbname=", dump],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**environment, "PGAPPNAME": _APPLICATION},
            check=False,
        )
    if result.returncode != 0:
        raise BackupError(f"pg_restore failed: {first_error(result.stderr)}")
    session.execute("ANALYZE")  # a dump contains no statistics, without which the first queries would be slow
