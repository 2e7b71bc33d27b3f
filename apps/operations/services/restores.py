"""Settles an installation whose database was restored from a backup, before it serves again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from apps.artifacts.services import restored as artifacts
from apps.fleet.services import restored as fleet
from apps.notifications.services import restored as notifications
from apps.releases.services import restored as releases
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import AuditSeal, Organization
from apps.tenancy.services import audit, ledger
from apps.tenancy.services import restored as tenancy
from byteor.engine.canonical import format_time
from byteor.engine.hash_chain import GENESIS

RESTORE = "backup.restore"


@dataclass(frozen=True, slots=True)
class Backup:
    """The backup that was restored: its name, when it was made, and the hash of its manifest."""

    name: str
    created_at: datetime
    manifest_hash: str


@dataclass(frozen=True, slots=True)
class Settled:
    """What was done, with numbers, and the last event of the installation's chain in the backup."""

    counts: dict[str, int]
    seq: int
    hash: str


@transaction.atomic
def settle(backup: Backup) -> Settled:
    """End or stop everything in the restored database that must not go on as if nothing had happened since the backup.

    First seals the events in the backup, so that each chain's event about the restore names the last of them. Then the
    apps settle their rows. Messages about these changes are new, so they are sent. Call this while no server runs, and
    only once for a restore.
    """
    actor = system_actor("restore")
    ledger.seal_all(whole=True)
    # First, because later changes cause new messages.
    counts = {**tenancy.settle(), **notifications.settle()}
    counts |= artifacts.settle()
    counts |= releases.settle(backup_at=backup.created_at, actor=actor)
    counts |= fleet.settle(actor=actor)
    for organization in Organization.objects.order_by("pk"):
        _record(backup, organization, {}, actor=actor)
    seq, last = _record(backup, None, counts, actor=actor)
    return Settled(counts, seq, last)


def _record(
    backup: Backup, organization: Organization | None, counts: dict[str, int], *, actor: Actor
) -> tuple[int, str]:
    """Record the restore in a chain. Returns the sequence number and hash of the chain's last sealed event."""
    seq, last = _head(None if organization is None else organization.pk)
    changes = {
        "created_at": format_time(backup.created_at),
        "manifest": backup.manifest_hash,
        "seq": seq,
        "hash": last,
        **{name: count for name, count in counts.items() if count},
    }
    audit.record(RESTORE, actor=actor, scope=organization, resource=("backup", backup.name), changes=changes)
    return seq, last


def _head(organization_id: UUID | None) -> tuple[int, str]:
    seal = AuditSeal.objects.filter(organization=organization_id).order_by("-seq").first()
    return (seal.seq, seal.hash) if seal else (0, GENESIS)
