"""``manage.py verify_ledger [--org ID | --installation] [--checkpoint FILE]``: is each audit trail as it was sealed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.operations.management.installation import organization_named
from apps.tenancy.ledger import Verification
from apps.tenancy.models import Organization
from apps.tenancy.services import signing_keys
from byteor_cloud.engine.delivery.encoding import format_time
from byteor_cloud.engine.hash_chain import Checkpoint, CheckpointRefused


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
        "Find events that were altered, removed, reordered or inserted, in the ledgers of all organizations and in the "
        "installation's own. A tail that was cut off, or a chain that was made anew, shows only against a checkpoint "
        "that was exported before: keep them elsewhere. "
        "Exits 0 when every ledger holds, 1 when one does not, 2 when it can't be told."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """All chains, unless one is named."""
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--org", help="id or slug of the one organization to verify")
        whose.add_argument("--installation", action="store_true", help="verify the installation's own chain only")
        parser.add_argument(
            "--checkpoint",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            help="an earlier export, or its last line; may be repeated",
        )

    def handle(self, *args: Any, org: str | None, installation: bool, checkpoint: list[Path], **options: Any) -> None:
        """One line a chain, after a line for each fault."""
        chosen: list[Organization | None] = [organization_named(org)] if org else []
        if not org and not installation:
            chosen += Organization.objects.order_by("id")
        if not org:
            chosen.append(None)  # the installation
        known: dict[str | None, dict[int, str]] = {_id(organization): {} for organization in chosen}
        for path in checkpoint:
            seen = self._checkpoint(path)
            if seen.org_id not in known:
                whose = f"organization {seen.org_id}" if seen.org_id else "the installation"
                raise CommandError(f"{path}: the checkpoint is of {whose}", returncode=1)
            if known[seen.org_id].setdefault(seen.seq, seen.hash) != seen.hash:
                raise CommandError(f"{path}: another checkpoint contradicts it", returncode=1)
        held = [self._verify(organization, known[_id(organization)]) for organization in chosen]
        if not all(held):
            raise CommandError("the ledger does not hold", returncode=1)

    @staticmethod
    def _checkpoint(path: Path) -> Checkpoint:
        try:
            seen = Checkpoint.read(last_line(path))
            if seen.org_id is None:
                signing_keys.ensure_installation_key()
            if seen.org_id is None or Organization.objects.filter(pk=seen.org_id).exists():
                seen.verify(signing_keys.key_set(None if seen.org_id is None else UUID(seen.org_id)))
        except CheckpointRefused as refused:
            raise CommandError(f"{path}: {refused}", returncode=1) from None
        return seen

    def _verify(self, organization: Organization | None, known: dict[int, str]) -> bool:
        began = time.perf_counter()
        name = "the installation" if organization is None else organization.slug
        verification, faults = Verification(None if organization is None else organization.pk, known=known), 0
        for fault in verification.faults():
            faults += 1
            self.stdout.write(f"{name}: {fault}")
        chain = verification.chain
        rate = chain.count / (time.perf_counter() - began)
        verdict = "ok" if not faults else "1 fault" if faults == 1 else f"{faults} faults"
        since = verification.unsealed_since
        waiting = f", {verification.unsealed} not sealed yet since {format_time(since)}" if since else ""
        self.stdout.write(
            f"{name if organization is None else f'{name} {organization.pk}'}: {verdict}; {chain.count} events, "
            f"to seq {chain.seq} {chain.hash}{waiting}; {rate:.0f} events/s"
        )
        return not faults


def _id(organization: Organization | None) -> str | None:
    return None if organization is None else str(organization.pk)
