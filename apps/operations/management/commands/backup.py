"""``manage.py backup TARGET``: back up the installation, verify a backup, or extract its master key."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from apps.operations.management.backup_command import BackupCommand
from apps.operations.services import backups
from apps.operations.services.backups import Part, Report
from byteor.engine.counted import count_of
from byteor_cloud.backup.manifest import Manifest
from byteor_cloud.backup.passphrase import read_passphrase
from byteor_cloud.backup.reading import open_backup
from byteor_cloud.config import PREFIX, store_key

# Added to the niceness of this process and of pg_dump, so that a backup slows down the service less.
PRIORITY = 19
LINE_EVERY_S = 10.0  # seconds between two lines of progress
_UNITS = {Part.DATABASE: " MB", Part.BLOBS: ""}


class Command(BackupCommand):
    help = (
        "Back up the database and the blobs while the service runs. A folder or bucket contains many backups, which "
        "share their blobs; a tar file contains one. Run the command again if it was interrupted. Exits with a "
        "code other than 0 if the command failed, if a blob that must be copied is missing or altered in the blob "
        "store, or if a verified backup is not intact."
    )

    database_failed = "the database cannot be used"

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the target and the options."""
        parser.add_argument("target", metavar="TARGET", help="a folder, a file FILE.tar, or s3://BUCKET/PREFIX")
        self.add_passphrase(
            parser,
            "encrypts the master key in the backup",
            note="; without a passphrase, the backup does not contain the master key",
        )
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument("--verify", action="store_true", help="check an existing backup instead")
        instead.add_argument(
            "--extract-master-key",
            type=Path,
            metavar="KEYFILE",
            help="decrypt the master key of an existing backup instead, and write it to a new file",
        )
        parser.add_argument(
            "--backup", metavar="NAME", help="the existing backup (default: the newest complete one of TARGET)"
        )

    def handle(
        self,
        *args: Any,
        target: str,
        passphrase_file: Path | None,
        verify: bool,
        extract_master_key: Path | None,
        backup: str | None,
        **options: Any,
    ) -> None:
        """Create or verify a backup, or extract its master key.

        Raises CommandError with one line or MasterKeyUnavailable if that fails, and SystemExit if it is interrupted.
        """
        if backup is not None and not verify and extract_master_key is None:
            raise CommandError("--backup requires --verify or --extract-master-key", returncode=2)
        with contextlib.suppress(OSError):
            os.nice(PRIORITY)
        with self.one_line_errors():
            passphrase = read_passphrase(passphrase_file, settings.CONFIG.backup_passphrase)
            if verify:
                self._verify(target, backup, passphrase)
            elif extract_master_key is not None:
                self._extract_key(target, backup, passphrase, extract_master_key)
            else:
                self._create(target, passphrase)

    def _create(self, target: str, passphrase: str | None) -> None:
        with _progress() as report:
            created = backups.create(target, passphrase=passphrase, report=report)
        made = created.manifest
        self.stdout.write(f"Backup {made.name} created in {target}:")
        self.stdout.write(f"  database: {made.dump.size} bytes ({_counts(made)})")
        self.stdout.write(f"  blobs: {made.blob_count} with {made.blob_bytes} bytes ({created.copied} new)")
        self.stdout.write(f"  manifest: {created.manifest_hash}")
        self.stdout.write(_about_key(made))
        for blob in created.faults:
            self.stderr.write(f"the blob {blob.sha256} is {blob.fault} in the blob store")
        if made.faulty_blobs:
            raise CommandError(
                f"{count_of(made.faulty_blobs, 'blob')} {'is' if made.faulty_blobs == 1 else 'are'} missing or altered "
                "in the blob store. The backup contains all other data",
                returncode=1,
            )

    def _verify(self, target: str, name: str | None, passphrase: str | None) -> None:
        faults = 0
        with open_backup(target, name) as backup:
            with _progress() as report:
                for fault in backups.verify(backup, passphrase=passphrase, report=report):
                    faults += 1
                    self.stdout.write(fault)
            made = backup.manifest
            if faults:
                raise CommandError(f"the backup {made.name} is not intact: {count_of(faults, 'fault')}", returncode=1)
            self.stdout.write(f"Backup {made.name} is intact:")
            self.stdout.write(f"  database: {made.dump.size} bytes ({_counts(made)})")
            self.stdout.write(f"  blobs: {made.blob_count} with {made.blob_bytes} bytes")
            self.stdout.write(f"  manifest: {backup.manifest_hash}")
            self.stdout.write(_about_key(made, is_checked=passphrase is not None))

    def _extract_key(self, target: str, name: str | None, passphrase: str | None, file: Path) -> None:
        if passphrase is None:
            raise CommandError(f"--extract-master-key requires --passphrase-file or {PREFIX}BACKUP_PASSPHRASE")
        if file.exists():
            raise CommandError(f"{file} already exists: name a new file")
        with open_backup(target, name) as backup:
            key = backups.read_master_key(backup.manifest, passphrase)
            try:
                store_key(key, file)
            except OSError as error:
                raise CommandError(f"{file} cannot be written: {error.strerror}") from None
            self.stdout.write(f"Master key {backup.manifest.master_key_id} written to {file}.")


def _counts(made: Manifest) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in made.counts.items())


def _about_key(made: Manifest, *, is_checked: bool = True) -> str:
    if made.master_key is None:
        return (
            f"  master key: NOT in the backup. To restore the backup, you need the master key {made.master_key_id}."
            " Keep a copy of the key in another place."
        )
    checked = "" if is_checked else "; not checked, because no passphrase was given"
    return f"  master key: {made.master_key_id}, encrypted with the passphrase{checked}"


@contextmanager
def _progress() -> Iterator[Report]:
    """Show the progress on standard error: as bars on a terminal, and otherwise as lines."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console  # noqa: PLC0415  slow to import, and only terminals need it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def report(part: Part, done: int, total: int | None) -> None:
            if part not in tasks:
                tasks[part] = bars.add_task(part.capitalize(), total=total, unit=_UNITS[part])
            bars.update(tasks[part], completed=_in_unit(part, done), total=total)

        yield report


class _Lines:
    """Writes a line when a part begins, then at most every ten seconds, and when all blobs are done."""

    def __init__(self) -> None:
        self._part: Part | None = None
        self._written_at = 0.0

    def __call__(self, part: Part, done: int, total: int | None) -> None:
        now = time.monotonic()
        if part == self._part and now - self._written_at < LINE_EVERY_S and done != total:
            return
        self._part, self._written_at = part, now
        of_total = "" if total is None else f" of {total}"
        print(f"{part}: {_in_unit(part, done)}{of_total}{_UNITS[part]}", file=sys.stderr, flush=True)


def _in_unit(part: Part, done: int) -> int:
    return done // 1_000_000 if part == Part.DATABASE else done
