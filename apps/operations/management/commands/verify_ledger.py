"""``manage.py verify_ledger [--org ID | --installation] [--checkpoint FILE]``: verify the ledgers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from apps.operations.management.installation import find_organization
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.models import Organization
from apps.tenancy.services import signing_keys
from apps.tenancy.services.ledger import Verification
from byteor.engine.canonical import format_time
from byteor.engine.counted import count_of
from byteor.engine.hash_chain import Checkpoint, CheckpointRefused


def read_last_line(path: Path) -> str:
    """Return the last line of an export of any length. Raises CommandError if the file cannot be read."""
    line = ""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:  # noqa: B007  only the last line is needed
                pass
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {error}", returncode=2) from None
    return line


class Command(OperatorCommand):
    help = (
        "Find altered, removed, reordered or inserted events in the ledgers of all organizations and of the "
        "installation. To detect a truncated or rebuilt ledger, compare with checkpoints of earlier exports that "
        "you keep on another host. Exits with 0 if every verified ledger is intact. Exits with 1 if a ledger "
        "is not intact, if a checkpoint is invalid or contradicts another one, or if the ledger of a checkpoint is not "
        "being verified. Exits with 2 if an argument is invalid."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options for the chains to verify and the checkpoints to compare with."""
        chain = parser.add_mutually_exclusive_group()
        chain.add_argument("--org", help="verify only the organization with this id or slug")
        chain.add_argument("--installation", action="store_true", help="verify only the installation's own chain")
        parser.add_argument(
            "--checkpoint",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            help="file with an earlier export, or with only its last line, to compare with; can be repeated",
        )

    def handle(self, *args: Any, org: str | None, installation: bool, checkpoint: list[Path], **options: Any) -> None:
        """Print a line for each fault, and one line for each chain. Raises CommandError if anything is not intact."""
        chosen: list[Organization | None] = [find_organization(org)] if org else []
        if not org and not installation:
            chosen += Organization.objects.order_by("id")
        if not org:
            chosen.append(None)  # the installation's own chain
        known: dict[str | None, dict[int, str]] = {_id(organization): {} for organization in chosen}
        for path in checkpoint:
            seen = self._checkpoint(path)
            if seen.org_id not in known:
                owner = f"organization {seen.org_id}" if seen.org_id else "the installation"
                raise CommandError(
                    f"{path}: the checkpoint is of {owner}, whose ledger is not being verified", returncode=1
                )
            if known[seen.org_id].setdefault(seen.seq, seen.hash) != seen.hash:
                raise CommandError(
                    f"{path}: the checkpoint contradicts another one with the same sequence number", returncode=1
                )
        results = [self._verify(organization, known[_id(organization)]) for organization in chosen]
        if not all(results):
            raise CommandError("at least one ledger is not intact", returncode=1)

    @staticmethod
    def _checkpoint(path: Path) -> Checkpoint:
        try:
            seen = Checkpoint.read(read_last_line(path))
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
        waiting = f", {count_of(verification.unsealed, 'event')} not sealed since {format_time(since)}" if since else ""
        self.stdout.write(
            f"{name if organization is None else f'{name} {organization.pk}'}: {verdict}; "
            f"{count_of(chain.count, 'event')}, to seq {chain.seq} {chain.hash}{waiting}; {rate:.0f} events/s"
        )
        return not faults


def _id(organization: Organization | None) -> str | None:
    return None if organization is None else str(organization.pk)
