"""``manage.py verify_ledger [--org ID] [--checkpoint FILE]``: is every organization's audit trail as it was sealed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.tenancy.ledger import Verification
from apps.tenancy.management.installation import organization_named
from apps.tenancy.models import Organization
from apps.tenancy.services import signing_keys
from byteor_cloud.engine.delivery.encoding import format_time
from byteor_cloud.engine.ledger import Checkpoint, CheckpointRefused


def last_line(path: Path) -> str:
    """The last line of an export of any length. Raises CommandError."""
    text = ""
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:  # noqa: B007  the last one is what is wanted
                pass
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {error}", returncode=2) from None
    return text


class Command(BaseCommand):
    help = (
        "Find events that were altered, removed, reordered or inserted. A tail that was cut off, or a chain that was "
        "made anew, shows only against a checkpoint that was exported before: keep them elsewhere. "
        "Exits 0 when every ledger holds, 1 when one does not, 2 when it can't be told."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """All organizations, unless one is named."""
        parser.add_argument("--org", help="id or slug of the one organization to verify")
        parser.add_argument(
            "--checkpoint",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            help="an earlier export, or its last line; may be repeated",
        )

    def handle(self, *args: Any, org: str | None, checkpoint: list[Path], **options: Any) -> None:
        """One line an organization, after a line for each fault."""
        chosen = [organization_named(org)] if org else list(Organization.objects.order_by("id"))
        known: dict[str, dict[int, str]] = {str(organization.pk): {} for organization in chosen}
        for path in checkpoint:
            seen = self._checkpoint(path)
            if seen.org_id not in known:
                raise CommandError(f"{path}: the checkpoint is of organization {seen.org_id}", returncode=1)
            if known[seen.org_id].setdefault(seen.seq, seen.hash) != seen.hash:
                raise CommandError(f"{path}: another checkpoint contradicts it", returncode=1)
        held = [self._verify(organization, known[str(organization.pk)]) for organization in chosen]
        if not all(held):
            raise CommandError("the ledger does not hold", returncode=1)

    @staticmethod
    def _checkpoint(path: Path) -> Checkpoint:
        try:
            seen = Checkpoint.read(last_line(path))
            organization = Organization.objects.filter(pk=seen.org_id).first()
            if organization is not None:
                seen.verify(signing_keys.key_set(organization.pk))
        except CheckpointRefused as refused:
            raise CommandError(f"{path}: {refused}", returncode=1) from None
        return seen

    def _verify(self, organization: Organization, known: dict[int, str]) -> bool:
        began = time.perf_counter()
        verification, faults = Verification(organization.pk, known=known), 0
        for fault in verification.faults():
            faults += 1
            self.stdout.write(f"{organization.slug}: {fault}")
        chain = verification.chain
        rate = chain.count / (time.perf_counter() - began)
        verdict = "ok" if not faults else "1 fault" if faults == 1 else f"{faults} faults"
        since = verification.unsealed_since
        waiting = f", {verification.unsealed} not sealed yet since {format_time(since)}" if since else ""
        self.stdout.write(
            f"{organization.slug} {organization.pk}: {verdict}; {chain.count} events, to seq {chain.seq} {chain.hash}"
            f"{waiting}; {rate:.0f} events/s"
        )
        return not faults
