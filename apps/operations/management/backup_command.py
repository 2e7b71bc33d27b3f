"""The base class of the commands that create and restore backups."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psycopg
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.services.vault import MasterKeyUnavailable
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.config import PREFIX
from byteor_cloud.errors import DomainError


class BackupCommand(OperatorCommand):
    """A command that takes a passphrase, and prints expected errors as one line each."""

    database_failed: ClassVar[str]
    """The beginning of the error line if the database fails."""
    after_interruption = ""
    """What an operator should do if the command was interrupted, with a leading space."""

    @staticmethod
    def add_passphrase(parser: CommandParser, purpose: str, *, note: str = "") -> None:
        """Add the option for the passphrase. ``purpose`` ends the sentence "the passphrase that …"."""
        parser.add_argument(
            "--passphrase-file",
            type=Path,
            metavar="FILE",
            help=f"file with the passphrase that {purpose} (default: the setting {PREFIX}BACKUP_PASSPHRASE){note}",
        )

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Turn errors of the backup, files and database in the block into CommandError with one line.

        SIGTERM interrupts the command like Ctrl-C, so that it cleans up. Raises SystemExit with the code 130 if the
        command is interrupted.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        except BackupError as error:
            raise CommandError(str(error)) from None
        except MasterKeyUnavailable:
            raise  # the base class handles it
        except DomainError as error:
            raise CommandError(error.detail) from None
        except OSError as error:
            raise CommandError(f"a file cannot be read or written: {error.strerror or type(error).__name__}") from None
        except (DatabaseError, InterfaceError, psycopg.Error) as error:
            reason = str(error).partition("\n")[0]
            raise CommandError(f"{self.database_failed}: {reason}") from None
        except KeyboardInterrupt:
            self.stderr.write(f"Interrupted.{self.after_interruption}")
            raise SystemExit(130) from None
