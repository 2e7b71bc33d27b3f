"""``manage.py rotate_master_key``: everything encrypted at rest comes under the present master key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, transaction

from apps.operations.management import installation
from apps.tenancy.actors import system
from apps.tenancy.services import master_key
from apps.tenancy.vault import VaultError
from byteor_cloud.config import PREFIX, Config, replace_key

LOCK = 7_226_190_003  # any number, the same in every process


class Command(BaseCommand):
    help = (
        "Encrypt everything at rest under the present master key, from the previous one. A key that is kept in the "
        "data folder is replaced first. Servers may run meanwhile; run it again after an interruption."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Forgetting the previous key is a step of its own: nothing can be opened with it any more."""
        parser.add_argument("--finish", action="store_true", help="also remove the previous key from the data folder")

    def handle(self, *args: Any, finish: bool, **options: Any) -> str:
        """One transaction, one command at a time."""
        current: Config = settings.CONFIG
        present, previous = current.master_key, current.master_key_previous
        is_kept = isinstance(present, Path) and isinstance(previous, Path)
        if finish and not is_kept:
            raise CommandError(f"no key is kept in the data folder: unset {PREFIX}MASTER_KEY_PREVIOUS instead")
        installation.migrate()
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            count = _reseal()
            # Only now that everything is known to open. From here on running servers seal under the new key.
            if isinstance(present, Path) and isinstance(previous, Path) and not finish:
                count += _reseal() if replace_key(present, previous) else 0
        said = f"{count} values were encrypted again under the present master key."
        if not isinstance(previous, Path):
            return f"{said} {PREFIX}MASTER_KEY_PREVIOUS is needed no more."
        if finish:
            previous.unlink(missing_ok=True)
            return f"{said} The previous one is removed; backups of the database from before need it."
        return f"{said} The previous one is kept in {previous} until rotate_master_key --finish."


def _reseal() -> int:
    try:
        return master_key.reseal(actor=system("rotate_master_key"))
    except VaultError as error:
        raise CommandError(f"{error}; nothing was changed") from None
