"""The hosts that run ``serve``, and the ids of their master keys."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now

from apps.tenancy.models import Host
from apps.tenancy.services import vault
from byteor_cloud.database.deletion import delete_in_batches

LIVE_FOR = timedelta(seconds=60)
KEPT_FOR = timedelta(days=1)


def announce(host_id: UUID) -> None:
    """Store or update the row of this host's ``serve`` process: the ids of its master keys, and that it is running."""
    try:
        ids = vault.own_key_ids()
    except vault.MasterKeyUnavailable:  # the file of a key is missing or damaged
        ids = []
    current = settings.CONFIG
    row = Host(
        id=host_id,
        name=socket.gethostname(),
        data_dir=str(current.data_dir),
        mode=current.deployment_mode,
        has_key_files=_has_key_files(),
        key_id=ids[0] if ids else "",
        previous_key_id=ids[1] if len(ids) > 1 else "",
        started_at=Now(),
        last_seen=Now(),
    )
    Host.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["key_id", "previous_key_id", "last_seen"],
    )


def withdraw(host_id: UUID) -> None:
    """Delete the row of a ``serve`` process that is stopping."""
    Host.objects.filter(pk=host_id).delete()


def live() -> QuerySet[Host]:
    """Return the hosts that were seen in the last minute."""
    return Host.objects.filter(last_seen__gt=Now() - LIVE_FOR).order_by("name", "data_dir", "mode", "id")


def others() -> list[Host]:
    """Return the live hosts that do not read their master keys from the same files as this process."""
    return list(live().filter(has_key_files=False) if _has_key_files() else live())


def delete_old_hosts() -> int:
    """Delete the hosts that were last seen more than a day ago. Returns the number of deleted hosts."""
    return delete_in_batches(Host.objects.filter(last_seen__lt=Now() - KEPT_FOR))


def _has_key_files() -> bool:
    return isinstance(settings.CONFIG.master_key, Path)
