"""``manage.py installation_keys [--rotate] > FILE``: print the key set that verifies the installation's ledger."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.tenancy.actors import system_actor
from apps.tenancy.services import signing_keys


class Command(BaseCommand):
    help = (
        "Print the installation's key set as JSON. Keep it on another host: with it, byteor-verify ledger --keys FILE "
        "verifies exports of the installation's own chain."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the option that rotates the key."""
        parser.add_argument(
            "--rotate",
            action="store_true",
            help="first create a new key, which signs from now on; the old key still verifies for a week",
        )

    def handle(self, *args: Any, rotate: bool, **options: Any) -> str:
        """Print the key set. Create the first key if there is none."""
        signing_keys.ensure_installation_key()
        if rotate:
            signing_keys.rotate(organization=None, actor=system_actor("installation_keys"))
        return json.dumps(signing_keys.key_set(None).document())
