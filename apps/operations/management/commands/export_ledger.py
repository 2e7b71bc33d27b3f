"""``manage.py export_ledger (--org ID | --installation) [--after-seq N] > FILE``: export a signed ledger."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from apps.operations.management.installation import find_organization
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.services import ledger, signing_keys
from byteor_cloud.errors import InvalidInput


class Command(OperatorCommand):
    help = (
        "Write the sealed audit events of an organization, or of the installation itself, as NDJSON. "
        "The last line is a signed checkpoint."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options for the chain and the first event."""
        chain = parser.add_mutually_exclusive_group(required=True)
        chain.add_argument("--org", help="id or slug of an organization")
        chain.add_argument(
            "--installation",
            action="store_true",
            help="the installation's own chain, with events such as sign-ins and changes of user tokens",
        )
        parser.add_argument(
            "--after-seq",
            type=int,
            default=0,
            metavar="N",
            help="start after this sequence number, to continue an earlier export",
        )

    def handle(self, *args: Any, org: str | None, after_seq: int, **options: Any) -> None:
        """Write the export line by line, so that a long ledger needs little memory."""
        if after_seq < 0:
            raise CommandError("--after-seq must be 0 or more", returncode=2)
        if org is None:
            signing_keys.ensure_installation_key()
        try:
            lines = ledger.export_lines(None if org is None else find_organization(org), after_seq=after_seq)
        except InvalidInput as refused:
            raise CommandError(f"--after-seq: {refused.detail}", returncode=2) from None
        for line in lines:
            self.stdout.write(line, ending="")
