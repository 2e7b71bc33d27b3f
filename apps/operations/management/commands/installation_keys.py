"""``manage.py installation_keys [--rotate] > FILE``: the public keys that verify the installation's own ledger."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.tenancy.actors import system
from apps.tenancy.services import signing_keys


class Command(BaseCommand):
    help = (
        "Print the installation's key set as JSON. Keep it elsewhere: byteor-verify ledger --keys FILE proves exports "
        "of the installation's own chain by it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Changing the key is asked for."""
        parser.add_argument(
            "--rotate",
            action="store_true",
            help="first make a new key that signs from now on; the one before verifies for a week more",
        )

    def handle(self, *args: Any, rotate: bool, **options: Any) -> str:
        """Make the first key where there is none."""
        signing_keys.ensure_installation_key()
        if rotate:
            signing_keys.rotate(organization=None, actor=system("installation_keys"))
        return json.dumps(signing_keys.key_set(None).document())
