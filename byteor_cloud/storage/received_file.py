"""A file on its way into the blob store: written to the disk once, and hashed on the way."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import override

from django.core.files.uploadedfile import UploadedFile

from byteor_cloud.concurrency.offload import run_in_disk_thread

PARTIAL = ".partial-"
MODE = 0o644
_BATCH_BYTES = 4 << 20
_ADVISE = getattr(os, "posix_fadvise", None)  # on Linux; elsewhere the kernel writes when it likes


class ReceivedFile(UploadedFile):  # type: ignore[type-arg]  # not generic at run time
    """A file under a temporary name in ``folder``. It is removed by ``close`` unless it was moved before.

    ``is_kept`` tells whether the blob store will keep this file, or copy it to another place.
    """

    def __init__(self, folder: Path, name: str, *, is_kept: bool) -> None:
        try:
            handle, path = tempfile.mkstemp(prefix=PARTIAL, dir=folder)
        except FileNotFoundError:  # the first file of this folder
            folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(prefix=PARTIAL, dir=folder)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # see data_folders.remove_leftovers
        self._raw = os.fdopen(handle, "w+b", buffering=0)
        super().__init__(self._raw, name, size=0)
        self._path: Path | None = Path(path)
        self._count = self._begun = 0
        self._digest = hashlib.sha256()
        self._is_durable = not is_kept

    @property
    def content_hash(self) -> str:
        """The hash of what was written so far."""
        return f"sha256:{self._digest.hexdigest()}"

    def append(self, piece: bytes) -> None:
        """Write and hash the next bytes. Raises OSError.

        This only fills the kernel's memory. Now and then it makes the kernel write that to the disk and lets others
        run meanwhile, so that ``make_durable`` has little left to wait for, and the kernel never blocks a write.
        """
        self._digest.update(piece)
        left = memoryview(piece)
        while left:  # a write to an almost full disk may be incomplete
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
        """Wait until the bytes of a kept file are on the disk. Some file systems notice only now that they are full."""
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
