"""Creates backups of the installation and verifies them. ``byteor_cloud.backup`` implements the format."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import IO

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from apps.artifacts.models import Artifact
from apps.fleet.models import Agent
from apps.releases.models import Deployment
from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, MasterKey, Organization, SigningKey
from apps.tenancy.services import audit, ledger, signing_keys, vault
from byteor_cloud import __version__
from byteor_cloud.backup import locks, manifest, programs, unfinished
from byteor_cloud.backup.copying import copy_blobs
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.manifest import LedgerHead, ListedBlob, Manifest
from byteor_cloud.backup.passphrase import EncryptedKey, check_strength, decrypt_key, encrypt_key
from byteor_cloud.backup.reading import CheckedReader, StoredBackup, open_target
from byteor_cloud.backup.targets import Target
from byteor_cloud.database.connections import Connection
from byteor_cloud.storage import data_folders


class Part(StrEnum):
    """The part of a backup whose progress is reported."""

    DATABASE = "database"
    BLOBS = "blobs"


type Report = Callable[[Part, int, int | None], None]
"""Called with the part, the number of completed bytes (of the database) or blobs, and the total number if known."""


@dataclass(frozen=True, slots=True)
class Created:
    """A new backup."""

    manifest: Manifest
    manifest_hash: str
    copied: int
    """The number of blobs that were copied to the target."""
    faults: tuple[ListedBlob, ...]
    """The first blobs that the target lacks, because the blob store has no valid copy of them."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """Facts for the manifest, read from the snapshot of the database."""

    migrations: tuple[str, ...]
    ledgers: tuple[LedgerHead, ...]
    master_key_id: str
    counts: dict[str, int]


MAX_NAMED = 100  # blobs with a fault that are reported by name; the blob list contains all of them


def create(location: str, *, passphrase: str | None, report: Report) -> Created:
    """Back up the database and the blobs while the service runs.

    The dump and the facts in the manifest come from one snapshot of the database. The service deletes no blob until the
    end, so that all blobs that the snapshot refers to can be copied. A blob that the target does not have yet, and that
    is missing or altered in the blob store, is listed in the backup as such.

    Raises BackupError, Unavailable, OSError or a database error. The backup is then not complete, unless the error says
    that only its audit event could not be written. The next backup to the same folder or bucket reuses the copied
    blobs.
    """
    if passphrase is not None:
        check_strength(passphrase)
    _check_place(location)
    with closing(open_target(location)) as target, locks.backup_lock() as session:
        unfinished.check()
        _check_schema()
        target.prepare()
        signing_keys.ensure_installation_key()
        if passphrase is not None:
            vault.ensure_key()  # fail early, before the backup begins
        installation = _find_installation()
        _check_owner(target, installation)
        target.remove_leftovers()
        stored = target.list_names()
        for name, is_complete in stored:
            if not is_complete:
                target.remove(name)
        now = timezone.now()
        name = manifest.new_name(now, after=stored[-1][0] if stored else None)
        try:
            created = _write(target, session, name, now, installation, passphrase=passphrase, report=report)
        except BaseException:
            with contextlib.suppress(BackupError):
                target.remove(name)
            raise
    try:
        _record(created)
    except DatabaseError as error:
        raise BackupError(
            f"the backup {name} is complete, but its audit event could not be written: {type(error).__name__}"
        ) from error
    return created


def _check_place(location: str) -> None:
    """Raise BackupError if the place is in the data folder, because the backup would be lost together with it."""
    if "://" not in location:
        place, data_dir = Path(location).resolve(), settings.CONFIG.data_dir.resolve()
        if place.is_relative_to(data_dir):
            raise BackupError(f"{location} is in the data folder {data_dir}: choose another disk or host")


def _check_schema() -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise BackupError(
            "the database's schema is older than this release: back it up with the release that created it, or start"
            " this release first"
        )


def _find_installation() -> str:
    key = SigningKey.objects.filter(organization=None).order_by("pk").first()
    assert key is not None  # noqa: S101  ``ensure_installation_key`` was called
    return str(key.pk)


def _check_owner(target: Target, installation: str) -> None:
    """Raise BackupError if the newest backup, which a restore uses by default, is of another installation."""
    complete = [name for name, is_complete in target.list_names() if is_complete]
    if complete and StoredBackup(target, complete[-1]).manifest.installation != installation:
        raise BackupError(f"{target.location} contains backups of another installation: use another place")


def _write(
    target: Target,
    session: Connection,
    name: str,
    now: datetime,
    installation: str,
    *,
    passphrase: str | None,
    report: Report,
) -> Created:
    with data_folders.scratch_folder() as scratch:
        with (scratch / "wanted").open("w+b") as wanted, (scratch / "listed").open("w+b") as listed:
            with _snapshot() as snapshot:
                facts = _read_facts()
                master_key = _encrypt_key(facts.master_key_id, passphrase)
                with programs.dumping(session, snapshot) as dump:
                    checked = _Reported(dump, manifest.dump_path(name), report)
                    target.write(manifest.dump_path(name), checked)
                total = _write_wanted(wanted)
            # If a migration rewrites a table before pg_dump has locked it, the snapshot sees an empty table.
            if _list_migrations() != facts.migrations:
                raise BackupError("the database was migrated during the backup: back up again")
            connection.close()  # copying the blobs may take hours
            blobs = _Blobs(total, report)
            wanted.seek(0)
            folder = None
            for blob in copy_blobs(target, map(ListedBlob.from_line, wanted), on_done=blobs.count):
                if blob.sha256[:2] != folder:
                    folder = blob.sha256[:2]
                    locks.check_held(session)  # otherwise the copying would go on in vain for hours
                listed.write(blob.to_line())
            listed.seek(0)
            blob_list = CheckedReader(listed, "the blob list")
            target.write(manifest.blob_list_path(name), blob_list)
        target.sync()
        locks.check_held(session)
        written = Manifest(
            name=name,
            created_at=now,
            installation=installation,
            product_version=__version__,
            migrations=facts.migrations,
            postgresql=programs.server_major(session),
            dump=checked.result(),
            blob_list=blob_list.result(),
            blob_count=total,
            blob_bytes=blobs.size,
            faulty_blobs=blobs.faulty,
            ledgers=facts.ledgers,
            master_key_id=facts.master_key_id,
            master_key=master_key,
            counts=facts.counts,
        )
        content = written.to_bytes()
        target.write(manifest.manifest_path(name), io.BytesIO(content))
        target.finish()
    return Created(written, manifest.hash_of(content), blobs.copied, tuple(blobs.named))


@contextmanager
def _snapshot() -> Iterator[str]:
    """Read from one snapshot of the database while the block runs. Yields its id, for pg_dump."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # The transaction stays open for as long as pg_dump runs, and a pooler may have set the timeouts of the API.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SELECT pg_export_snapshot()")
        yield cursor.fetchone()[0]


def _read_facts() -> _Facts:
    return _Facts(
        migrations=_list_migrations(),
        ledgers=tuple(
            LedgerHead(None if organization_id is None else str(organization_id), seq, digest)
            for organization_id, seq, digest in ledger.list_heads()
        ),
        master_key_id=MasterKey.objects.get().key_id,
        counts={
            "organizations": Organization.objects.count(),
            "agents": Agent.objects.enrolled().count(),
            "artifacts": Artifact.objects.count(),
            "audit_events": AuditEvent.objects.count(),
        },
    )


def _list_migrations() -> tuple[str, ...]:
    applied = MigrationRecorder.Migration.objects.order_by("app", "name").values_list("app", "name")
    return tuple(f"{app}.{name}" for app, name in applied)


def _write_wanted(file: IO[bytes]) -> int:
    """Write a line for each blob that the snapshot refers to, in the order of the hashes. Return their number.

    Blobs that no row refers to are left out: the service deletes them, and a restored installation has no use for them.
    """
    artifacts = Artifact.objects.values_list("content_hash", "size_bytes")
    bundles = Deployment.objects.exclude(bundle_hash=None).values_list("bundle_hash", "bundle_size")
    rows = artifacts.union(bundles).order_by("content_hash").iterator()
    count = 0
    for content_hash, same in groupby(rows, key=lambda row: row[0]):
        size = next((size for _, size in same if size is not None), 0)
        file.write(ListedBlob(content_hash.removeprefix("sha256:"), size).to_line())
        count += 1
    return count


class _Reported(CheckedReader):
    """A stream of the dump that reports its progress."""

    def __init__(self, dump: programs.Dump, name: str, report: Report) -> None:
        super().__init__(dump, name)
        self._report = report

    def read(self, size: int = -1, /) -> bytes:
        piece = super().read(size)
        self._report(Part.DATABASE, self.result().size, None)
        return piece


class _Blobs:
    """Counts blobs, and reports the progress."""

    def __init__(self, total: int, report: Report) -> None:
        self._total, self._report = total, report
        self._done = self.copied = self.size = self.faulty = 0
        self.named: list[ListedBlob] = []
        report(Part.BLOBS, 0, total)

    def count(self, blob: ListedBlob, was_copied: bool) -> None:
        self._done += 1
        self.size += blob.size
        if blob.fault is None:
            self.copied += was_copied
        else:
            self.faulty += 1
            if len(self.named) < MAX_NAMED:
                self.named.append(blob)
        self._report(Part.BLOBS, self._done, self._total)


def _encrypt_key(key_id: str, passphrase: str | None) -> EncryptedKey | None:
    return None if passphrase is None else encrypt_key(vault.export_key(key_id), key_id, passphrase)


@transaction.atomic
def _record(created: Created) -> None:
    audit.record(
        "backup.create",
        actor=system_actor("backup"),
        scope=None,
        resource=("backup", created.manifest.name),
        changes={
            "manifest_hash": [None, created.manifest_hash],
            "has_master_key": [None, created.manifest.master_key is not None],
            "faulty_blobs": [None, created.manifest.faulty_blobs],
        },
    )


def last_created_at() -> datetime | None:
    """Return when the newest recorded backup of this installation was completed, or None if none is recorded."""
    events = AuditEvent.objects.filter(organization=None, action="backup.create").order_by("-id")
    return events.values_list("timestamp", flat=True).first()


def verify(backup: StoredBackup, *, passphrase: str | None, report: Report) -> Iterator[str]:
    """Read the whole backup and yield a description of each fault. The master key is checked only with a passphrase."""
    yield from _verify_dump(backup)
    yield from _verify_blobs(backup, report)
    yield from _verify_key(backup.manifest, passphrase)


def _verify_dump(backup: StoredBackup) -> Iterator[str]:
    with data_folders.scratch_folder() as scratch:
        try:
            with (scratch / "database.dump").open("wb") as file:
                backup.copy_dump(file)
            # The programs of the embedded database read the dumps of older versions as well.
            programs.check_dump(scratch / "database.dump", backup.manifest.postgresql)
        except BackupError as error:
            yield str(error)


def _verify_blobs(backup: StoredBackup, report: Report) -> Iterator[str]:
    total, done, size = backup.manifest.blob_count, 0, 0
    report(Part.BLOBS, 0, total)
    try:
        for blob in backup.list_blobs():
            if blob.fault is not None:
                yield f"the blob {blob.sha256} was already {blob.fault} when the backup was made"
            else:
                yield from _verify_blob(backup, blob)
            done, size = done + 1, size + blob.size
            report(Part.BLOBS, done, total)
    except BackupError as error:
        yield str(error)
        return
    if (done, size) != (total, backup.manifest.blob_bytes):
        yield "the number or the total size of the listed blobs differs from the manifest"


def _verify_blob(backup: StoredBackup, blob: ListedBlob) -> Iterator[str]:
    try:
        with open(os.devnull, "wb") as nowhere:
            backup.copy_blob(blob, nowhere)
    except BackupError as error:
        yield str(error)


def _verify_key(checked: Manifest, passphrase: str | None) -> Iterator[str]:
    if passphrase is None:
        return
    try:
        read_master_key(checked, passphrase)
    except BackupError as error:
        yield str(error)


def read_master_key(made: Manifest, passphrase: str) -> bytes:
    """Decrypt the master key in a backup. Raises BackupError if there is none, or the passphrase or key is wrong."""
    if made.master_key is None:
        raise BackupError("the backup does not contain the master key, so there is nothing to decrypt")
    key = decrypt_key(made.master_key, made.master_key_id, passphrase)
    if vault.key_id(key) != made.master_key_id:
        raise BackupError(f"the master key in the backup is not the key {made.master_key_id} that the manifest names")
    return key
