"""Storage of blobs in a local folder, in which a file is either complete or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from byteor_cloud.concurrency.offload import run_in_disk_thread
from byteor_cloud.storage.blobs import ReceivedFile


class AtomicFileStorage(FileSystemStorage):
    """Django's file storage, but files are written with a temporary name and then renamed.

    Django's own storage writes in place: if the disk is full or the process is killed, half a file would remain under
    the whole file's hash. When ``save`` has returned, the file survives a power failure.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._durable_folders: set[Path] = set()

    def receive(self, name: str) -> ReceivedFile:
        """Open a temporary file in this folder, so that ``save`` only has to rename it."""
        return ReceivedFile(Path(self.location), name, is_kept=True)

    def _save(self, name: str, content: Any) -> str:
        target = Path(self.path(name))
        if isinstance(content, ReceivedFile):
            content.make_durable()
            try:
                run_in_disk_thread(self._place, content, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                return name
        run_in_disk_thread(self._copy, content, target)
        return name

    def _copy(self, content: File[bytes], target: Path) -> None:
        with self.receive(target.name) as copy:
            for piece in content.chunks():
                copy.append(piece)
            copy.make_durable()
            self._place(copy, target)

    def _place(self, file: ReceivedFile, target: Path) -> None:
        folder = target.parent
        try:
            file.move(target)
        except FileNotFoundError:  # the folder is created for its first blob
            self._durable_folders.discard(folder)
            folder.mkdir(parents=True, exist_ok=True)
            file.move(target)
        sync_folder(folder)
        if folder not in self._durable_folders:  # another process may have just created the folder
            sync_folder(folder.parent)
            self._durable_folders.add(folder)


def sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
