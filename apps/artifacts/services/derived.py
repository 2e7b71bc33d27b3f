"""Capture folders: the unpacked files and indexes of incident bundles, which each host keeps within limits.

``Artifact.derived_bytes`` is about the size of the artifact's capture folder, and 0 if no folder is known to exist.
With several hosts, it is what one of them stored last. A folder can be rebuilt from the upload, so folders are deleted
to stay within the limits. If an organization exceeds its limit, its own folders are deleted. If a host exceeds its
limit, folders of the organization that uses the most space are deleted.
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

MAX_FOLDERS = 64  # the maximum number of capture folders of one organization on a host
MAX_SHARES = 16  # the size limit of a host, as a multiple of the limit of one organization
IDLE_S = 24 * 3600.0  # seconds after which an unused folder is deleted
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('artifacts.derived', 0))"


def keep(artifact: Artifact, complete: Path, size: int) -> Path | None:
    """Move a complete capture folder to its final path, store its size, and delete folders that exceed the limits.

    Returns the final path, or None if the host is full and no other organization uses more space than this folder.
    Raises RejectedBundle if the folder alone exceeds the organization's limit, and NotFound if the artifact was
    deleted.
    """
    if size > settings.CONFIG.max_derived_bytes:
        detail = f"its files and indexes take {size} bytes, and the limit for all captures of an organization is"
        raise RejectedBundle([RejectionReason("too_large", f"{detail} {settings.CONFIG.max_derived_bytes} bytes")])
    with transaction.atomic():
        _lock()
        if not Artifact.objects.filter(pk=artifact.pk).update(derived_bytes=size):
            raise NotFound("The artifact has been deleted.")
        new = folders.move_into_place(complete, artifact.environment.project.organization_id, artifact.pk, size)
        excess = _excess(new)
        discarded = _discard(excess)
    _delete(discarded)
    return None if new in excess else new.path


def delete(artifact: Artifact) -> None:
    """Delete the capture folder of an artifact from this host."""
    with transaction.atomic():
        _lock()
        discarded = _discard(each for each in folders.list_folders() if each.artifact == artifact.pk)
    _delete(discarded)


def delete_unused() -> None:
    """Delete this host's folders that were unused for a day or belong to no artifact. Correct the stored sizes."""
    with transaction.atomic():
        _lock()
        kept = folders.list_folders()
        found = Artifact.objects.filter(pk__in=[each.artifact for each in kept if each.artifact])
        counted = dict(found.values_list("pk", "derived_bytes"))
        idle_since = time.time() - IDLE_S
        needed = {each for each in kept if each.artifact in counted and each.used_at > idle_since}
        discarded = _discard(each for each in kept if each not in needed)
        sizes = {each.artifact: each.size for each in needed if each.artifact is not None}
        for artifact, size in sizes.items():
            if counted[artifact] != size:
                Artifact.objects.filter(pk=artifact).update(derived_bytes=size)
        if len({(host.name, host.data_dir) for host in hosts.live()}) <= 1:  # no other running host has folders
            Artifact.objects.filter(derived_bytes__gt=0).exclude(pk__in=list(sizes)).update(derived_bytes=0)
    _delete(discarded)


def _lock() -> None:
    """Keep other processes from moving folders or storing their sizes until the caller's transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)


def _excess(new: folders.CaptureFolder) -> list[folders.CaptureFolder]:
    """Return the folders to delete to meet the limits: of each affected organization, the least recently used ones.

    While the host is full, the organization that uses the most space loses a folder. If this is the organization of
    ``new`` and it has no other folder, the list ends with ``new`` itself.
    """
    kept = [each for each in folders.list_folders() if each != new]
    excess: list[folders.CaptureFolder] = []

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
    while (used := folders.count_bytes([*kept, new])).total() > MAX_SHARES * settings.CONFIG.max_derived_bytes:
        if not remove_oldest(max(used, key=lambda owner: (used[owner], owner == new.organization))):
            return [*excess, new]
    return excess


def _discard(unneeded: Iterable[folders.CaptureFolder]) -> list[Path]:
    """Move folders to the scratch folder and set their stored sizes to 0. Returns the paths to ``_delete``."""
    removed = list(unneeded)
    Artifact.objects.filter(pk__in=[each.artifact for each in removed if each.artifact]).update(derived_bytes=0)
    return [folder for each in removed if (folder := folders.discard(each)) is not None]


def _delete(discarded: Iterable[Path]) -> None:
    """Delete discarded folders. Call this after the transaction: if the process dies, the next cleanup deletes them."""
    for each in discarded:
        run_in_disk_thread(shutil.rmtree, each, ignore_errors=True)
