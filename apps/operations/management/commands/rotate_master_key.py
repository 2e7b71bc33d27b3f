"""``manage.py rotate_master_key``: encrypt all stored secrets again, with the current master key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, transaction

from apps.operations.management import installation
from apps.tenancy.actors import system_actor
from apps.tenancy.services import master_key
from apps.tenancy.vault import VaultError
from byteor_cloud.config import PREFIX, Config, replace_key

LOCK = 7_226_190_003  # an arbitrary number that every process must use


class Command(BaseCommand):
    help = (
        "Encrypt all stored secrets again, with the current master key instead of the previous one. A key in the data "
        "folder is replaced first. Servers may keep running. Run the command again if it was interrupted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the option that removes the previous key, which is a separate step since it cannot be undone."""
        parser.add_argument("--finish", action="store_true", help="also remove the previous key from the data folder")

    def handle(self, *args: Any, finish: bool, **options: Any) -> str:
        """Rotate in one transaction. A lock makes concurrent runs wait."""
        current: Config = settings.CONFIG
        key, previous = current.master_key, current.master_key_previous
        is_in_folder = isinstance(key, Path) and isinstance(previous, Path)
        if finish and not is_in_folder:
            raise CommandError(f"the data folder contains no master key: unset {PREFIX}MASTER_KEY_PREVIOUS instead")
        installation.migrate()
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            count = _reseal()
            # Replace the key only now, when all secrets could be decrypted. Running servers then use the new one.
            if isinstance(key, Path) and isinstance(previous, Path) and not finish:
                count += _reseal() if replace_key(key, previous) else 0
        summary = f"{count} values were encrypted again with the current master key."
        if not isinstance(previous, Path):
            return f"{summary} {PREFIX}MASTER_KEY_PREVIOUS is no longer needed."
        if finish:
            previous.unlink(missing_ok=True)
            return f"{summary} The previous key is removed. Older backups of the database still need it."
        return f"{summary} The previous key stays in {previous} until you run rotate_master_key --finish."


def _reseal() -> int:
    try:
        return master_key.reseal(actor=system_actor("rotate_master_key"))
    except VaultError as error:
        raise CommandError(f"{error}; nothing was changed") from None
