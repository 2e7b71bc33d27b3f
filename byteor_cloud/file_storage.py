"""The storage of blobs in a local folder, in which a file is either complete or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

PARTIAL = ".partial-"
MODE = 0o644


class AtomicFileStorage(FileSystemStorage):
    """Django's file storage, but files are written under a temporary name and then renamed.

    Django's own storage writes in place: after a full disk or a kill, half a file would remain under the hash of the
    whole file.
    """

    def _save(self, name: str, content: Any) -> str:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # An upload's temporary file on the same disk can be renamed instead of copied.
            _place(Path(content.temporary_file_path()), target)
        except (AttributeError, OSError):
            self._copy(content, target)
        return name

    def _copy(self, content: Any, target: Path) -> None:
        handle, partial = tempfile.mkstemp(prefix=PARTIAL, dir=self.location)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in content.chunks():
                    file.write(chunk)
            _place(Path(partial), target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise


def _place(source: Path, target: Path) -> None:
    """Move a complete file to its name, after an fsync: some file systems report only then that they are full."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.chmod(MODE)
    source.replace(target)
