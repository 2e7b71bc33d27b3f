"""``manage.py restore SOURCE``: restore a backup into an empty installation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from apps.operations.management import database_wait, restoration
from apps.operations.management.backup_command import BackupCommand
from apps.operations.services.restores import Settled
from byteor_cloud.backup.manifest import Manifest
from byteor_cloud.backup.passphrase import read_passphrase
from byteor_cloud.backup.reading import open_backup

_LINE_EVERY_S = 5.0
_CHANGES = {
    "approvals_revoked": "approvals revoked (their credentials may have been spent)",
    "deployments_aborted": "deployments aborted (when the backup was made, they had not been offered to agents)",
    "deployments_paused": "deployments paused",
    "offers_held": "offers held (agents keep running what they run)",
    "replays_interrupted": "execute replays set to failed (their side effects may have happened)",
    "sessions_ended": "console sessions ended",
    "links_expired": "one-time sign-in links expired",
    "enrollment_tokens_revoked": "enrollment tokens revoked",
    "webhook_deliveries_dropped": "pending webhook deliveries set to failed",
    "chat_messages_dropped": "pending chat messages set to failed",
    "mails_dropped": "notifications not sent by e-mail",
}
_NEXT = """
Next steps (the backup was made at {at}):
1. Start the server. User tokens, API keys and agent keys that were revoked after the backup, and memberships that were
   removed since, are valid again. Revoke and remove them again.
2. Agents reconnect automatically, except those that were enrolled after the backup, or whose keys were rotated since.
   manage.py refused_agents lists those that have tried to connect. Enroll them again.
3. On the environment pages of the console, compare what agents run with what the backup offers them. Then resume the
   offers of each environment in the console or with byteor held-offers resume, and resume or abort the paused
   deployments. docs/backup.md explains each step.
"""


class Command(BackupCommand):
    help = (
        "Restore a backup into an empty data folder or database, and verify blobs, database and ledgers. Actions that "
        "may have happened after the backup are not repeated: unspent approvals are revoked, deployments in progress "
        "are paused or aborted, offers are held until they are resumed or replaced, and sessions are deleted. If a "
        "restore is interrupted, run the same command again to complete it. Exits with a code other than 0 if the "
        "restore failed, or if the restored installation is not intact."
    )

    database_failed = "the database cannot be used"
    after_interruption = " To complete the restore, run the same command again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments for the backup and the passphrase."""
        parser.add_argument("source", metavar="SOURCE", help="a folder, a file FILE.tar, or s3://BUCKET/PREFIX")
        parser.add_argument("--backup", metavar="NAME", help="the backup to restore (default: the newest complete one)")
        self.add_passphrase(parser, "decrypts the master key in the backup")
        parser.add_argument(
            "--use-existing-blobs",
            action="store_true",
            help="restore into a bucket that still contains the blobs, if only the database was lost. No other "
            "installation may use the bucket",
        )

    def handle(
        self,
        *args: Any,
        source: str,
        backup: str | None,
        passphrase_file: Path | None,
        use_existing_blobs: bool,
        **options: Any,
    ) -> None:
        """Restore the backup, and print what was restored and changed.

        Raises OperationalError if the database cannot be reached at the beginning, CommandError or MasterKeyUnavailable
        if the restore fails, and CommandError if the restored installation is not intact. Raises SystemExit if
        interrupted.
        """
        database_wait.wait_for_database(self._report, stopped_code=130)
        with self.one_line_errors():
            passphrase = read_passphrase(passphrase_file, settings.CONFIG.backup_passphrase)
            with open_backup(source, backup) as stored:
                settled = restoration.restore(
                    stored,
                    passphrase=passphrase,
                    use_existing_blobs=use_existing_blobs,
                    report=self._report,
                    on_blob=self._count,
                )
                self.after_interruption = " The restore is complete, but not verified: run manage.py verify_ledger."
                self._print(stored.manifest, settled)
            faults = restoration.verify(stored.manifest, report=self.stdout.write)
        self.stdout.write(_NEXT.format(at=f"{stored.manifest.created_at:%Y-%m-%d %H:%M:%S} UTC").rstrip())
        if faults:
            raise CommandError("the restored installation is not intact, see above", returncode=1)

    def _report(self, line: str) -> None:
        self.stderr.write(f"byteor-cloud: {line}")

    _copied = 0
    _next_line = 0.0

    def _count(self, total: int) -> None:
        """Count a blob, and report the number from time to time."""
        self._copied += 1
        if time.monotonic() >= self._next_line or self._copied == total:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            self._report(f"{self._copied:,} of {total:,} {'blob' if total == 1 else 'blobs'} restored")

    def _print(self, manifest: Manifest, settled: Settled) -> None:
        counts = ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in manifest.counts.items())
        self.stdout.write(
            f"Backup {manifest.name} of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC restored, up to event "
            f"{settled.seq} of the installation's ledger{f': {counts}' if counts else ''}"
        )
        for name, count in settled.counts.items():
            if count:
                self.stdout.write(f"  {_CHANGES[name]}: {count:,}")
