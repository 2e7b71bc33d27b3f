"""The folders that are derived from incident bundles, below the data folder of each host.

A folder is built when the artifact is verified, or when it is missing. It is removed with the blob, on other hosts when
they next clean up or build one, and the least recently used ones are removed when there are too many.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from byteor_cloud import data_folders

MAX_CAPTURES = 64  # folders that are kept; each has at most 512 MiB and its indexes


def folder_of(content_hash: str) -> Path:
    """Return the folder that is derived from a blob."""
    return Path(settings.CONFIG.data_dir, "captures", content_hash.removeprefix("sha256:"))


def list_kept() -> list[str]:
    """Return the hashes of the blobs from which this host has a folder."""
    with suppress(FileNotFoundError):
        return [f"sha256:{each.name}" for each in folder_of("").iterdir()]
    return []


def forget(content_hash: str) -> None:
    """Remove what was derived from a blob on this host."""
    shutil.rmtree(folder_of(content_hash), ignore_errors=True)


def keep(content_hash: str, made: Path) -> Path:
    """Move a complete folder to its place, unless another process was faster; remove the least recently used ones."""
    folder = folder_of(content_hash)
    data_folders.captures()
    with suppress(OSError):
        made.rename(folder)
    used = []
    for each in folder.parent.iterdir():
        with suppress(FileNotFoundError):
            used.append((each.stat().st_mtime, each))
    for _, each in sorted(used)[:-MAX_CAPTURES]:
        shutil.rmtree(each, ignore_errors=True)
    return folder
