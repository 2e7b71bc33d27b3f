"""The capture folders in the data folder of this host, one for each unpacked incident bundle.

The path of a folder is ``captures/<organization>/<artifact>.<size>``. Because names contain the size, listing the names
is enough to compute how much space each organization uses. ``derived`` decides which folders are kept.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from django.conf import settings

from byteor_cloud.storage import data_folders


class CaptureFolder(NamedTuple):
    """A capture folder of this host. ``artifact`` is None for files and folders whose path has another form."""

    organization: str
    artifact: UUID | None
    size: int
    path: Path

    @property
    def used_at(self) -> float:
        """The Unix time of the folder's last use; 0 if the folder is gone."""
        with suppress(FileNotFoundError):
            return self.path.stat().st_mtime
        return 0.0


def list_folders() -> list[CaptureFolder]:
    """Return all capture folders of this host."""
    return [folder for each in _entries(_root()) for folder in _folders_of(each)]


def find(organization: UUID, artifact: UUID) -> Path | None:
    """Return the capture folder of an artifact and update its time of use. Returns None if this host has none."""
    for path in _entries(_root() / str(organization)):
        if path.name.startswith(f"{artifact}."):
            with suppress(FileNotFoundError):
                os.utime(path)
                return path
    return None


def move_into_place(complete: Path, organization: UUID, artifact: UUID, size: int) -> CaptureFolder:
    """Move a complete capture folder to its final path, unless another process was faster."""
    owner = data_folders.captures() / str(organization)
    owner.mkdir(mode=0o700, exist_ok=True)
    path = owner / f"{artifact}.{size}"
    if not path.exists():
        complete.rename(path)
    return CaptureFolder(owner.name, artifact, size, path)


def discard(folder: CaptureFolder) -> Path | None:
    """Move a folder to the scratch folder. Returns the path to delete, or None if the folder was already gone."""
    try:
        return data_folders.discard(folder.path)
    except FileNotFoundError:
        return None
    finally:
        if folder.path.parent != _root():
            with suppress(OSError):  # the organization's folder may contain other capture folders
                folder.path.parent.rmdir()


def count_bytes(folders: list[CaptureFolder]) -> Counter[str]:
    """Return how many bytes the folders of each organization take."""
    found: Counter[str] = Counter()
    for each in folders:
        found[each.organization] += each.size
    return found


def _root() -> Path:
    return Path(settings.CONFIG.data_dir, "captures")


def _entries(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return []


def _folders_of(owner: Path) -> list[CaptureFolder]:
    if not _is_id(owner.name):  # an older release named folders after the hashes of blobs
        return [CaptureFolder(owner.name, None, 0, owner)]
    found = []
    for each in _entries(owner):
        artifact, _, size = each.name.partition(".")
        is_ours = _is_id(artifact) and size.isdecimal()
        found.append(CaptureFolder(owner.name, UUID(artifact) if is_ours else None, int(size) if is_ours else 0, each))
    return found


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
