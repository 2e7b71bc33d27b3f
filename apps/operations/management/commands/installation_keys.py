"""``manage.py installation_keys [--rotate] > FILE``: print the key set that verifies the installation's ledger."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandParser

from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.actors import system_actor
from apps.tenancy.services import signing_keys


class Command(OperatorCommand):
    help = (
        "Print the installation's key set as JSON. Keep it on another host: byteor-verify ledger --keys FILE uses it "
        "to verify exports of the installation's own chain."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the option that rotates the key."""
        parser.add_argument(
            "--rotate",
            action="store_true",
            help="first replace the signing key with a new one; the old key still verifies its checkpoints",
        )

    def handle(self, *args: Any, rotate: bool, **options: Any) -> str:
        """Print the key set, after a rotation if requested. Creates the first key if there is none."""
        signing_keys.ensure_installation_key()
        if rotate:
            signing_keys.rotate(organization=None, actor=system_actor("installation_keys"))
        return json.dumps(signing_keys.key_set(None).document())
