"""Settles an installation whose database was restored from a backup, before it serves again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from apps.artifacts.services import restored as artifacts
from apps.fleet.services import restored as fleet
from apps.notifications.services import restored as notifications
from apps.releases.services import restored as releases
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import Organization
from apps.tenancy.services import audit, ledger
from apps.tenancy.services import restored as tenancy
from byteor.engine.canonical import format_time
from byteor.engine.hash_chain import GENESIS

RESTORE = "backup.restore"
_EMPTY = (0, GENESIS)  # the head of a chain without events


@dataclass(frozen=True, slots=True)
class Backup:
    """The backup that was restored: its name, when it was made, and the hash of its manifest."""

    name: str
    created_at: datetime
    manifest_hash: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The counts that the apps' ``settle`` functions returned, and the last event of the installation's chain.

    ``seq`` and ``hash`` identify the event, which is the chain's last one in the backup.
    """

    counts: dict[str, int]
    seq: int
    hash: str


@transaction.atomic
def settle(backup: Backup) -> Settled:
    """Settle the restored database, because what is pending in it may have been done or used since the backup.

    First seals the events in the backup, so that each chain's event about the restore names the last of them. Then the
    apps settle their rows. Messages about these changes are new, so they are sent. Call this while no server runs, and
    only once for a restore.
    """
    actor = system_actor("restore")
    ledger.seal_all(whole=True)
    # These two come first, because they drop pending messages. The later steps cause new messages, which must be sent.
    counts = {**tenancy.settle(), **notifications.settle()}
    counts |= artifacts.settle()
    counts |= releases.settle(backup_at=backup.created_at, actor=actor)
    counts |= fleet.settle(actor=actor)
    heads = {organization_id: (seq, last) for organization_id, seq, last in ledger.list_heads()}
    for organization in Organization.objects.order_by("pk"):
        _record(backup, organization, heads.get(organization.pk, _EMPTY), {}, actor=actor)
    head = heads.get(None, _EMPTY)
    _record(backup, None, head, counts, actor=actor)
    return Settled(counts, *head)


def _record(
    backup: Backup, organization: Organization | None, head: tuple[int, str], counts: dict[str, int], *, actor: Actor
) -> None:
    """Record the restore in a chain, with the sequence number and the hash of the chain's last event in the backup."""
    seq, last = head
    changes = {
        "created_at": format_time(backup.created_at),
        "manifest": backup.manifest_hash,
        "seq": seq,
        "hash": last,
        **{name: count for name, count in counts.items() if count},
    }
    audit.record(RESTORE, actor=actor, scope=organization, resource=("backup", backup.name), changes=changes)
