"""What is derived from incident bundles: kept on each host within bounds, and counted to the artifact.

``Artifact.derived_bytes`` is the size of the folder that a host keeps, and 0 while none is kept. A folder can be built
again from the upload at any time. So the bounds remove folders: of an organization that holds too much its own ones,
and of a host that holds too much those of the organization with the most. One organization's uploads therefore never
remove what another one holds, unless that one holds more.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction

from apps.artifacts.models import Artifact
from apps.artifacts.services import folders
from apps.tenancy.services import hosts
from byteor.engine.replay import RejectedBundle, RejectionReason
from byteor_cloud.concurrency.offload import run_in_disk_thread
from byteor_cloud.errors import NotFound

MAX_FOLDERS = 64  # that a host keeps of one organization
MAX_SHARES = 16  # a host keeps as much of all organizations together as of so many that use all that they may
IDLE_S = 24 * 3600.0
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('artifacts.derived', 0))"


def keep(artifact: Artifact, made: Path, size: int) -> Path | None:
    """Move a complete folder to its place, count it, and remove what exceeds the bounds. Returns its place.

    Returns None if the host is full and every other organization holds less than this folder. Raises RejectedBundle
    if the organization may not keep a folder of this size at all, and NotFound if the artifact was deleted.
    """
    if size > settings.CONFIG.max_derived_bytes:
        detail = f"its files and indexes take {size} bytes, and at most {settings.CONFIG.max_derived_bytes} are kept"
        raise RejectedBundle([RejectionReason("too_large", f"{detail} of one organization")])
    with transaction.atomic():
        _lock()
        if not Artifact.objects.filter(pk=artifact.pk).update(derived_bytes=size):
            raise NotFound("The artifact was deleted meanwhile.")
        new = folders.place(made, artifact.environment.project.organization_id, artifact.pk, size)
        excess = _excess(new)
        taken = _take_out(excess)
    _delete(taken)
    return None if new in excess else new.path


def delete(artifact: Artifact) -> None:
    """Delete from this host what was derived from an artifact."""
    with transaction.atomic():
        _lock()
        taken = _take_out(each for each in folders.list_kept() if each.artifact == artifact.pk)
    _delete(taken)


def delete_unused() -> None:
    """Delete from this host what nobody used for a day and what is of deleted artifacts. Correct what is counted."""
    with transaction.atomic():
        _lock()
        kept = folders.list_kept()
        found = Artifact.objects.filter(pk__in=[each.artifact for each in kept if each.artifact])
        counted = dict(found.values_list("pk", "derived_bytes"))
        idle_since = time.time() - IDLE_S
        needed = {each for each in kept if each.artifact in counted and each.used_at > idle_since}
        taken = _take_out(each for each in kept if each not in needed)
        sizes = {each.artifact: each.size for each in needed if each.artifact is not None}
        for artifact, size in sizes.items():
            if counted[artifact] != size:
                Artifact.objects.filter(pk=artifact).update(derived_bytes=size)
        if len({(host.name, host.data_dir) for host in hosts.live()}) <= 1:  # else another host may keep the others
            Artifact.objects.filter(derived_bytes__gt=0).exclude(pk__in=list(sizes)).update(derived_bytes=0)
    _delete(taken)


def _lock() -> None:
    """Wait until no other process moves folders or counts them, until the caller's transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)


def _excess(new: folders.Kept) -> list[folders.Kept]:
    """Return the folders to remove so that the bounds hold, the least recently used ones of an organization first."""
    kept = [each for each in folders.list_kept() if each != new]
    excess: list[folders.Kept] = []

    def remove_oldest(organization: str) -> bool:
        theirs = [each for each in kept if each.organization == organization]
        if theirs:
            excess.append(min(theirs, key=lambda each: each.used_at))
            kept.remove(excess[-1])
        return bool(theirs)

    def is_over() -> bool:
        own = [each for each in kept if each.organization == new.organization]
        return len(own) >= MAX_FOLDERS or sum(each.size for each in own) + new.size > settings.CONFIG.max_derived_bytes

    while is_over():
        remove_oldest(new.organization)
    while (held := folders.held([*kept, new])).total() > MAX_SHARES * settings.CONFIG.max_derived_bytes:
        if not remove_oldest(max(held, key=lambda owner: (held[owner], owner == new.organization))):
            return [*excess, new]
    return excess


def _take_out(unneeded: Iterable[folders.Kept]) -> list[Path]:
    """Take folders out of their places, and count them no longer. Returns what is to be deleted."""
    removed = list(unneeded)
    Artifact.objects.filter(pk__in=[each.artifact for each in removed if each.artifact]).update(derived_bytes=0)
    return [folder for each in removed if (folder := folders.take_out(each)) is not None]


def _delete(taken: Iterable[Path]) -> None:
    """Delete what was taken out, after the transaction. If the process dies before, the next cleaning does it."""
    for each in taken:
        run_in_disk_thread(shutil.rmtree, each, ignore_errors=True)
