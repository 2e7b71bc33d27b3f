"""The folders for temporary files in the data folder. They are created when a process starts, and again if they vanish.

Somebody may delete such a folder while processes run, so each use of a folder begins with one of these functions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

import structlog
from django.conf import settings

from byteor_cloud import space
from byteor_cloud.errors import Unavailable

_PRIVATE = 0o700  # captured data passes through these folders
logger = structlog.get_logger(__name__)


def uploads() -> Path:
    """Return the folder for uploads and for objects of a bucket that are being read."""
    return _ensure(Path(settings.FILE_UPLOAD_TEMP_DIR))


def scratch() -> Path:
    """Return the folder for files that a job or a request needs until it ends."""
    return _ensure(settings.CONFIG.data_dir / "scratch")


def captures() -> Path:
    """Return the folder for what is derived from incident bundles."""
    return _ensure(settings.CONFIG.data_dir / "captures")


def create() -> None:
    """Create all folders. Raises Unavailable with the name of a folder that cannot be created, or a disk's OSError."""
    for folder in (uploads, scratch, captures):
        folder()


def check_writable() -> None:
    """Raise Unavailable or OSError unless files can be created in each folder. A missing folder is created."""
    for folder in (uploads, scratch, captures):
        open_temporary(folder()).close()


def open_temporary(folder: Path) -> BinaryIO:
    """Open a file without a name in one of these folders. Raises Unavailable or a disk's OSError, never another."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        if space.is_disk_error(error):
            raise
        raise _unavailable(folder.name, error) from error


def _ensure(folder: Path) -> Path:
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    except OSError as error:
        if space.is_disk_error(error):  # the callers of blobs and jobs know these errors
            raise
        raise _unavailable(folder.name, error) from error
    return folder


def _unavailable(folder: str, error: OSError) -> Unavailable:
    logger.error("folder_unusable", folder=folder, error=error.strerror)
    detail = f"The server cannot use its folder {folder} for temporary files: {error.strerror}."
    return Unavailable(detail, retry_after=10)
