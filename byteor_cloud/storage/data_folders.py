"""The folders for temporary files in the data folder. They are created when a process starts, and again if they vanish.

Somebody may delete such a folder while processes run, so each use of a folder begins with one of these functions.
A process locks its temporary files and folders while it uses them. The kernel unlocks them when the process dies, so
``remove_leftovers`` recognizes what no process uses, however long a job takes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import structlog
from django.conf import settings

from byteor_cloud.errors import Unavailable
from byteor_cloud.storage import space

PARTIAL = ".partial-"  # the beginning of the names of files that are being received
# A younger file may not be locked yet. On a file system without locks, this also protects uploads in progress.
LEFTOVER_S = 1800.0
_PRIVATE = 0o700  # captured data passes through these folders
logger = structlog.get_logger(__name__)


def uploads() -> Path:
    """Return the folder for uploads and for objects of a bucket that are being read."""
    return _ensure(Path(settings.FILE_UPLOAD_TEMP_DIR))


def scratch() -> Path:
    """Return the folder for files that a job or a request needs until it ends."""
    return _ensure(settings.CONFIG.data_dir / "scratch")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a folder in ``scratch`` that exists, and is locked, until the block ends."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        lock = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield Path(folder)
        finally:
            os.close(lock)


def discard(folder: Path) -> Path:
    """Move a folder to the scratch folder, and return the new folder, for the caller to delete. Raises OSError."""
    target = Path(tempfile.mkdtemp(dir=scratch())) / folder.name
    folder.rename(target)
    return target.parent


def remove_leftovers() -> None:
    """Delete the temporary files and folders of processes that were killed."""
    partial = settings.CONFIG.data_dir / "artifacts"
    for folder, names in ((uploads(), "*"), (scratch(), "*"), (partial, f"{PARTIAL}*")):
        for leftover in folder.glob(names):
            with suppress(FileNotFoundError):  # its process has just removed it
                if leftover.lstat().st_mtime > time.time() - LEFTOVER_S or _is_in_use(leftover):
                    continue
                logger.info("leftover_removed", folder=folder.name)
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()


def _is_in_use(path: Path) -> bool:
    """Return whether a running process has locked the file or folder. Raises FileNotFoundError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


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
