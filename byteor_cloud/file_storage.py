"""Artifacts in a folder: a file is there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

PARTIAL = ".partial-"
MODE = 0o644


class AtomicFileStorage(FileSystemStorage):
    """Django's storage in a folder, without files that a full disk or a kill has cut off.

    Django's own writes in place: a failed write would leave half a file under the hash of the whole one, or destroy
    the bytes that are already there.
    """

    def _save(self, name: str, content: Any) -> str:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # An upload that lies on the same disk needs no second copy.
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
    """Give a complete file its name, once its bytes are safe: some file systems say only then that they are full."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.chmod(MODE)
    source.replace(target)
