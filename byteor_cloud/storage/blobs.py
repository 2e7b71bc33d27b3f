"""The blob store: bytes in the configured storage, named by their SHA-256, so that equal bytes are stored once.

An uploaded file is hashed while it is written to the disk. A local store receives it directly.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, override

import structlog
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.files.uploadedfile import UploadedFile
from django.db import connection

from byteor_cloud.concurrency.offload import run_in_disk_thread
from byteor_cloud.errors import InsufficientStorage, NotStored, Unavailable
from byteor_cloud.storage import data_folders, space
from byteor_cloud.storage.object_store_errors import object_store_errors

MODE = 0o644
_BATCH_BYTES = 4 << 20
_ADVISE = getattr(os, "posix_fadvise", None)  # missing on macOS, where the kernel decides when to write
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
logger = structlog.get_logger(__name__)


class ReceivedFile(UploadedFile):  # type: ignore[type-arg]  # not generic at run time
    """A file with a temporary name in ``folder``. ``close`` removes it unless it was moved before.

    ``is_kept`` is true if the blob store keeps this file itself, and false if it copies the bytes.
    """

    def __init__(self, folder: Path, name: str, *, is_kept: bool) -> None:
        try:
            handle, path = tempfile.mkstemp(prefix=data_folders.PARTIAL, dir=folder)
        except FileNotFoundError:  # the folder is created for its first file
            folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(prefix=data_folders.PARTIAL, dir=folder)
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # see data_folders.remove_leftovers
        self._raw = os.fdopen(handle, "w+b", buffering=0)
        super().__init__(self._raw, name, size=0)
        self._path: Path | None = Path(path)
        self._count = self._begun = 0
        self._digest = hashlib.sha256()
        self._is_durable = not is_kept

    @property
    def content_hash(self) -> str:
        """The hash of the bytes written so far."""
        return f"sha256:{self._digest.hexdigest()}"

    def append(self, piece: bytes) -> None:
        """Write and hash the next bytes. Raises OSError.

        The bytes first go to the kernel's memory. From time to time, except on macOS, this method makes the kernel
        write them to the disk, while other requests run. ``make_durable`` then has little to wait for, and the kernel
        seldom blocks a write.
        """
        self._digest.update(piece)
        left = memoryview(piece)
        while left:  # a write to an almost full disk may be partial
            left = left[self._raw.write(left) :]
        self._count += len(piece)
        self.size = self._count
        if self._count - self._begun >= _BATCH_BYTES:
            run_in_disk_thread(self._begin_writing)

    def _begin_writing(self) -> None:
        if _ADVISE is not None:
            _ADVISE(self._raw.fileno(), self._begun, self._count - self._begun, os.POSIX_FADV_DONTNEED)
        self._begun = self._count

    def make_durable(self) -> None:
        """Wait until a kept file is on the disk. Some file systems report only at this point that they are full."""
        if not self._is_durable:
            run_in_disk_thread(self._sync)

    def _sync(self) -> None:
        os.fchmod(self._raw.fileno(), MODE)
        os.fsync(self._raw.fileno())
        self._is_durable = True

    def move(self, target: Path) -> None:
        """Give the durable file its final name on the same disk. Raises OSError."""
        assert self._path is not None  # noqa: S101  a file is moved once
        self._path.replace(target)
        self._path = None

    @override
    def close(self) -> None:
        """Close the file, and remove it unless it was moved."""
        super().close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            self._path = None


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Convert errors of the object store or the disk to Unavailable, so that callers retry later."""
    try:
        yield
    except object_store_errors() as error:
        logger.exception("storage_failed", kind=type(error).__name__)
        raise Unavailable("The blob store is not available. Try again later.", retry_after=10) from None
    except OSError as error:
        if not space.is_disk_error(error):
            raise
        logger.exception("storage_failed", kind=type(error).__name__)
        raise Unavailable("A disk of the server is full or does not work. Try again later.", retry_after=10) from error


def storage_name(content_hash: str) -> str:
    """Return the storage's name for the bytes with the hash ``sha256:<hex>``."""
    digest = content_hash.removeprefix("sha256:")
    return f"sha256/{digest[:2]}/{digest}"


def put(content_hash: str, content: bytes) -> None:
    """Store bytes from memory, unless they are stored already. Raises Unavailable or OSError."""
    name = storage_name(content_hash)
    with _storage_errors():
        if default_storage.exists(name) and default_storage.size(name) == len(content):
            return
    _save(name, ContentFile(content))


def receive(name: str) -> ReceivedFile:
    """Open a temporary file for incoming bytes. ``put_file`` stores them, and ``close`` removes the temporary file.

    Raises Unavailable or OSError.
    """
    file: ReceivedFile = default_storage.receive(name)  # type: ignore[attr-defined]  # both of our storages have this method
    return file


def put_file(content_hash: str, file: File) -> None:  # type: ignore[type-arg]  # any kind of open file
    """Store a file. If it is stored already, it is written again, which renews its ``stored_at`` time.

    If there is not enough space, no part of the file remains. Raises InsufficientStorage, Unavailable or OSError.
    """
    try:
        _save(storage_name(content_hash), file)
    except Unavailable as unavailable:
        if isinstance(unavailable.__cause__, OSError) and unavailable.__cause__.errno in _NO_SPACE:
            raise InsufficientStorage(
                "There is not enough space to store the file, so it was not stored. Try again later.", retry_after=30
            ) from unavailable.__cause__
        raise


def _save(name: str, file: File) -> None:  # type: ignore[type-arg]  # any kind of open file
    with _storage_errors():
        default_storage.save(name, file)


def read(content_hash: str) -> IO[bytes]:
    """Open the bytes for reading. Raises NotStored, Unavailable or OSError."""
    with _storage_errors(), _missing_blob():
        return default_storage.open(storage_name(content_hash), "rb")


def copy_to(content_hash: str, target: Path) -> None:
    """Copy the bytes to a file. Raises NotStored, Unavailable or OSError."""
    with read(content_hash) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)


@contextmanager
def _missing_blob() -> Iterator[None]:
    """Convert the storage's FileNotFoundError to NotStored, or to Unavailable if the whole folder is missing."""
    try:
        yield
    except FileNotFoundError:
        if _is_mounted():
            raise NotStored("The content is no longer stored.") from None
        raise Unavailable("The blob store's folder is missing. Try again later.", retry_after=10) from None


def _is_mounted() -> bool:
    """Return False if a local storage's folder is missing, probably because its disk is not mounted."""
    store = default_storage._wrapped  # type: ignore[attr-defined]  # an attribute of Django's lazy object
    return not isinstance(store, FileSystemStorage) or Path(store.path("sha256")).is_dir()


def check_readable(content_hash: str) -> None:
    """Open the bytes and read the first one. Raises NotStored, Unavailable or OSError."""
    with read(content_hash) as stored, _storage_errors():
        stored.read(1)


def protect(content_hash: str) -> None:
    """Keep these bytes from being deleted until the end of the caller's transaction, which adds a reference to them.

    Call ``is_stored`` after this, because the bytes may have been deleted just before.
    """
    _lock(content_hash, "pg_advisory_xact_lock_shared")


def lock_for_removal(content_hash: str) -> None:
    """Wait for transactions that ``protect`` these bytes, and block new ones until the caller's transaction ends."""
    _lock(content_hash, "pg_advisory_xact_lock")


def _lock(content_hash: str, function: str) -> None:
    number = int.from_bytes(hashlib.sha256(f"blob {content_hash}".encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [number])


def is_stored(content_hash: str) -> bool:
    """Return whether the bytes are in the storage. Raises Unavailable or OSError."""
    with _storage_errors():
        return default_storage.exists(storage_name(content_hash))


def delete(content_hash: str) -> None:
    """Delete the bytes if they are stored. Call ``lock_for_removal`` first and check that no row refers to them.

    Raises Unavailable or OSError.
    """
    with _storage_errors():
        default_storage.delete(storage_name(content_hash))


def list_stored(folder: int) -> list[str]:
    """Return the hashes of all blobs in one of the storage's 256 folders. Raises Unavailable or OSError."""
    with _storage_errors():
        try:
            return [f"sha256:{name}" for name in default_storage.listdir(f"sha256/{folder:02x}")[1]]
        except FileNotFoundError:
            return []


def stored_at(content_hash: str) -> datetime:
    """Return the time at which the bytes were last stored. Raises NotStored, Unavailable or OSError."""
    with _storage_errors(), _missing_blob():
        return default_storage.get_modified_time(storage_name(content_hash))
