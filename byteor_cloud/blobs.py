"""Bytes by their content hash, in the configured storage: the same bytes are stored once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import structlog
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, default_storage

from byteor_cloud.errors import Unavailable

logger = structlog.get_logger(__name__)


@contextmanager
def _reachable() -> Iterator[None]:
    """A store that does not answer, or refuses us, is ours to mend: the caller may try again later."""
    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        logger.exception("storage_failed", kind=type(error).__name__)
        raise Unavailable("The artifact store is not reachable.", retry_after=10) from None


def name_of(content_hash: str) -> str:
    """Where the bytes of ``sha256:<hex>`` are kept."""
    digest = content_hash.removeprefix("sha256:")
    return f"sha256/{digest[:2]}/{digest}"


def put(content_hash: str, content: bytes) -> None:
    """Store small content; what is there already is not written again."""
    name = name_of(content_hash)
    with _reachable():
        if default_storage.exists(name) and default_storage.size(name) == len(content):
            return
    _save(name, ContentFile(content))


def put_file(content_hash: str, file: File) -> None:  # type: ignore[type-arg]  # any kind of open file
    """Store a file that may be large; it is streamed. Again even if it is there, so that it counts as young."""
    _save(name_of(content_hash), file)


def _save(name: str, file: File) -> None:  # type: ignore[type-arg]  # as above
    with _reachable():
        default_storage.save(name, file)
    if isinstance(default_storage._wrapped, FileSystemStorage):  # type: ignore[attr-defined]  # the lazy object's target
        _sync(Path(default_storage.path(name)))


def _sync(path: Path) -> None:
    """What is acknowledged survives a power cut: the file and the entries that lead to it reach the disk."""
    for target in (path, path.parent, path.parent.parent):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(content_hash: str) -> IO[bytes]:
    """Open the bytes for reading. Raises FileNotFoundError, or Unavailable when the store does not answer."""
    with _reachable():
        return default_storage.open(name_of(content_hash), "rb")


def delete(content_hash: str) -> None:
    """Remove the bytes; the caller has made sure that nothing refers to them."""
    default_storage.delete(name_of(content_hash))


def stored_before(moment: datetime) -> Iterator[list[str]]:
    """The hashes of all bytes stored before ``moment``, a folder at a time."""
    try:
        folders = default_storage.listdir("sha256")[0]
    except FileNotFoundError:
        return
    for folder in sorted(folders):
        names = default_storage.listdir(f"sha256/{folder}")[1]
        old = [n for n in names if default_storage.get_modified_time(f"sha256/{folder}/{n}") < moment]
        if old:
            yield [f"sha256:{name}" for name in old]
