"""``manage.py export_ledger (--org ID | --installation) [--after-seq N] > FILE``: the sealed audit trail, signed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.operations.management.installation import organization_named
from apps.tenancy import ledger
from apps.tenancy.services import signing_keys
from byteor_cloud.errors import InvalidInput


class Command(BaseCommand):
    help = (
        "Write the sealed audit events of an organization, or those that belong to none, as NDJSON, and a signed "
        "checkpoint as the last line."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Whose, and from where."""
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("--org", help="id or slug of an organization")
        whose.add_argument(
            "--installation",
            action="store_true",
            help="the installation's own chain: sign-ins, user tokens, operators, the master key",
        )
        parser.add_argument("--after-seq", type=int, default=0, metavar="N", help="go on from an earlier export")

    def handle(self, *args: Any, org: str | None, after_seq: int, **options: Any) -> None:
        """Write a line at a time, so that memory stays small."""
        if after_seq < 0:
            raise CommandError("--after-seq is at least 0", returncode=2)
        if org is None:
            signing_keys.ensure_installation_key()
        try:
            lines = ledger.export(None if org is None else organization_named(org), after_seq=after_seq)
        except InvalidInput as refused:
            raise CommandError(refused.detail, returncode=2) from None
        for text in lines:
            self.stdout.write(text, ending="")
