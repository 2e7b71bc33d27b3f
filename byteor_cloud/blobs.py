"""Bytes by their content hash, in the configured storage: the same bytes are stored once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, default_storage


def name_of(content_hash: str) -> str:
    """Where the bytes of ``sha256:<hex>`` are kept."""
    digest = content_hash.removeprefix("sha256:")
    return f"sha256/{digest[:2]}/{digest}"


def put(content_hash: str, content: bytes) -> None:
    """Store small content."""
    _save(content_hash, ContentFile(content))


def put_file(content_hash: str, file: File) -> None:  # type: ignore[type-arg]  # any kind of open file
    """Store a file that may be large; it is streamed."""
    _save(content_hash, file)


def _save(content_hash: str, file: File) -> None:  # type: ignore[type-arg]  # as above
    name = name_of(content_hash)
    if default_storage.exists(name) and default_storage.size(name) == file.size:
        return
    default_storage.save(name, file)
    if isinstance(default_storage._wrapped, FileSystemStorage):  # type: ignore[attr-defined]  # the lazy object's target
        _sync(Path(default_storage.path(name)))


def _sync(path: Path) -> None:
    """What is acknowledged survives a power cut: the file and its folder's entry reach the disk."""
    for target in (path, path.parent):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(content_hash: str) -> IO[bytes]:
    """Open the bytes for reading. Raises FileNotFoundError."""
    return default_storage.open(name_of(content_hash), "rb")


def delete(content_hash: str) -> None:
    """Remove the bytes; the caller has made sure that nothing refers to them."""
    default_storage.delete(name_of(content_hash))
