"""Bytes by their content hash, in the configured storage: the same bytes are stored once."""

from __future__ import annotations

import errno
import hashlib
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
from django.db import connection

from byteor_cloud import space
from byteor_cloud.errors import InsufficientStorage, Unavailable

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
logger = structlog.get_logger(__name__)


@contextmanager
def _reachable() -> Iterator[None]:
    """A store that does not answer, or refuses us, is ours to mend: the caller may try again later."""
    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        logger.exception("storage_failed", kind=type(error).__name__)
        raise Unavailable("The artifact store is not reachable.", retry_after=10) from None
    except OSError as error:
        if not space.is_disk_error(error):
            raise
        logger.exception("storage_failed", kind=type(error).__name__)
        raise Unavailable("The artifact store's disk is full or not writable.", retry_after=10) from error


def storage_name(content_hash: str) -> str:
    """Where the bytes of ``sha256:<hex>`` are kept."""
    digest = content_hash.removeprefix("sha256:")
    return f"sha256/{digest[:2]}/{digest}"


def put(content_hash: str, content: bytes) -> None:
    """Store small content; what is there already is not written again."""
    name = storage_name(content_hash)
    with _reachable():
        if default_storage.exists(name) and default_storage.size(name) == len(content):
            return
    _save(name, ContentFile(content))


def put_file(content_hash: str, file: File) -> None:  # type: ignore[type-arg]  # any kind of open file
    """Store a file that may be large; it is streamed. Again even if it is there, so that it counts as young.

    Raises InsufficientStorage when there is no space for it, and then nothing of it is left.
    """
    try:
        _save(storage_name(content_hash), file)
    except Unavailable as unavailable:
        if isinstance(unavailable.__cause__, OSError) and unavailable.__cause__.errno in _NO_SPACE:
            raise InsufficientStorage(
                "There is no space left for it; nothing was stored.", retry_after=30
            ) from unavailable.__cause__
        raise


def _save(name: str, file: File) -> None:  # type: ignore[type-arg]  # as above
    with _reachable():
        default_storage.save(name, file)
        if isinstance(default_storage._wrapped, FileSystemStorage):  # type: ignore[attr-defined]  # the lazy object's target
            _sync(Path(default_storage.path(name)))


def _sync(path: Path) -> None:
    """What is acknowledged survives a power cut: the file and the entries that lead to it reach the disk."""
    for target in (path, path.parent, path.parent.parent):
        try:
            handle = os.open(target, os.O_RDONLY)
        except FileNotFoundError:
            if target != path:
                raise
            continue  # removed just now, since nothing referred to it yet: callers ask again once they ``protect`` it
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(content_hash: str) -> IO[bytes]:
    """Open the bytes for reading. Raises FileNotFoundError, or Unavailable when the store does not answer."""
    try:
        with _reachable():
            return default_storage.open(storage_name(content_hash), "rb")
    except FileNotFoundError:
        if _is_mounted():
            raise
        raise Unavailable("The artifact store's folder is missing.", retry_after=10) from None


def _is_mounted() -> bool:
    """Whether a local store is there at all: without its folder no file of it is missing, but the disk."""
    store = default_storage._wrapped  # type: ignore[attr-defined]  # the lazy object's target
    return not isinstance(store, FileSystemStorage) or Path(store.path("sha256")).is_dir()


def check_readable(content_hash: str) -> None:
    """Raise what ``read`` does, or OSError, unless the bytes can be read now."""
    with read(content_hash) as stored, _reachable():
        stored.read(1)


def protect(content_hash: str) -> None:
    """Hold off the removal of these bytes until the caller's transaction ends, which writes a row that refers to them.

    Ask ``is_stored`` afterwards: they may have been removed just before.
    """
    _hold(content_hash, "pg_advisory_xact_lock_shared")


def lock_for_removal(content_hash: str) -> None:
    """Wait for the transactions that ``protect`` these bytes, and hold off new ones until the caller's own ends."""
    _hold(content_hash, "pg_advisory_xact_lock")


def _hold(content_hash: str, function: str) -> None:
    number = int.from_bytes(hashlib.sha256(f"blob {content_hash}".encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [number])


def is_stored(content_hash: str) -> bool:
    """Whether the bytes are there."""
    with _reachable():
        return default_storage.exists(storage_name(content_hash))


def delete(content_hash: str) -> None:
    """Remove the bytes, if they are there. Call it under ``lock_for_removal``, when nothing refers to them."""
    with _reachable():
        default_storage.delete(storage_name(content_hash))


def list_stored(folder: int) -> list[str]:
    """Return the hashes of all bytes in one of the 256 folders."""
    with _reachable():
        try:
            return [f"sha256:{name}" for name in default_storage.listdir(f"sha256/{folder:02x}")[1]]
        except FileNotFoundError:
            return []


def stored_at(content_hash: str) -> datetime:
    """Return when the bytes were stored last. Raises FileNotFoundError."""
    with _reachable():
        return default_storage.get_modified_time(storage_name(content_hash))
