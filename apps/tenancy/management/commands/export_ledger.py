"""``manage.py export_ledger --org ID [--after-seq N] > FILE``: the sealed audit trail with a signed checkpoint."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.tenancy import ledger
from apps.tenancy.management.installation import organization_named
from byteor_cloud.errors import InvalidInput


class Command(BaseCommand):
    help = "Write an organization's sealed audit events as NDJSON, and a signed checkpoint as the last line."

    def add_arguments(self, parser: CommandParser) -> None:
        """Whose, and from where."""
        parser.add_argument("--org", required=True, help="id or slug")
        parser.add_argument("--after-seq", type=int, default=0, metavar="N", help="go on from an earlier export")

    def handle(self, *args: Any, org: str, after_seq: int, **options: Any) -> None:
        """A line at a time, so that memory stays small."""
        if after_seq < 0:
            raise CommandError("--after-seq is at least 0", returncode=2)
        try:
            lines = ledger.export(organization_named(org), after_seq=after_seq)
        except InvalidInput as refused:
            raise CommandError(refused.detail, returncode=2) from None
        for text in lines:
            self.stdout.write(text, ending="")
