"""The folders that are derived from incident bundles: below the data folder of each host, one for each artifact.

A folder is ``captures/<organization>/<artifact>.<size>``. The size is a part of the name, so that listing the names is
enough to know how much each organization holds. ``derived`` decides which ones are kept.
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


class Kept(NamedTuple):
    """A folder of this host. ``artifact`` is None for what this release did not make."""

    organization: str
    artifact: UUID | None
    size: int
    path: Path

    @property
    def used_at(self) -> float:
        """When the folder was last used, as Unix time."""
        with suppress(FileNotFoundError):
            return self.path.stat().st_mtime
        return 0.0


def list_kept() -> list[Kept]:
    """Return the folders of this host."""
    return [kept for each in _entries(_root()) for kept in _kept_of(each)]


def find(organization: UUID, artifact: UUID) -> Path | None:
    """Return the folder of an artifact, if this host has one, and note that it is used."""
    for path in _entries(_root() / str(organization)):
        if path.name.startswith(f"{artifact}."):
            with suppress(FileNotFoundError):
                os.utime(path)
                return path
    return None


def place(made: Path, organization: UUID, artifact: UUID, size: int) -> Kept:
    """Move a complete folder to its place, unless another process was faster."""
    owner = data_folders.captures() / str(organization)
    owner.mkdir(mode=0o700, exist_ok=True)
    path = owner / f"{artifact}.{size}"
    if not path.exists():
        made.rename(path)
    return Kept(owner.name, artifact, size, path)


def take_out(kept: Kept) -> Path | None:
    """Take a folder out of its place; return the folder to delete, or None if it was gone already."""
    try:
        return data_folders.discard(kept.path)
    except FileNotFoundError:
        return None
    finally:
        if kept.path.parent != _root():
            with suppress(OSError):  # the organization may have other folders here
                kept.path.parent.rmdir()


def held(kept: list[Kept]) -> Counter[str]:
    """Return how many bytes each organization holds."""
    found: Counter[str] = Counter()
    for each in kept:
        found[each.organization] += each.size
    return found


def _root() -> Path:
    return Path(settings.CONFIG.data_dir, "captures")


def _entries(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return []


def _kept_of(owner: Path) -> list[Kept]:
    if not _is_id(owner.name):  # an older release named folders by the hashes of blobs
        return [Kept(owner.name, None, 0, owner)]
    found = []
    for each in _entries(owner):
        artifact, _, size = each.name.partition(".")
        is_ours = _is_id(artifact) and size.isdecimal()
        found.append(Kept(owner.name, UUID(artifact) if is_ours else None, int(size) if is_ours else 0, each))
    return found


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
