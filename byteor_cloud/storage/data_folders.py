"""The folders in the data folder for temporary and derived files. They are created when the server starts.

Somebody may delete such a folder while processes run, so the functions that return one create it again. These functions
raise Unavailable, or OSError if the disk is the cause. A process locks the files that it receives and the folders of
``scratch_folder`` while it uses them. The kernel unlocks them when the process dies, so ``remove_leftovers`` recognizes
unused ones, however long a job takes.
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

PARTIAL = ".partial-"  # the prefix of the names of files that are being received
# Leftovers are at least this many seconds old: a new file may not be locked yet, and some file systems have no locks.
LEFTOVER_S = 1800.0
_PRIVATE = 0o700  # captured data passes through these folders
logger = structlog.get_logger(__name__)


def uploads() -> Path:
    """Return the folder for files that are being sent to a bucket or read from it."""
    return _ensure(Path(settings.FILE_UPLOAD_TEMP_DIR))


def scratch() -> Path:
    """Return the folder for files that exist only during a job, a request or a command."""
    return _ensure(settings.CONFIG.data_dir / "scratch")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a locked folder in ``scratch`` that is deleted when the block ends."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        lock = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield Path(folder)
        finally:
            os.close(lock)


def discard(folder: Path) -> Path:
    """Move a folder into a new one in ``scratch``, and return the new one, which the caller deletes.

    Raises OSError or Unavailable.
    """
    target = Path(tempfile.mkdtemp(dir=scratch())) / folder.name
    folder.rename(target)
    return target.parent


def remove_leftovers() -> None:
    """Delete temporary files and folders that no running process has locked and that are older than ``LEFTOVER_S``."""
    partial = settings.CONFIG.data_dir / "artifacts"
    for folder, names in ((uploads(), "*"), (scratch(), "*"), (partial, f"{PARTIAL}*")):
        for leftover in folder.glob(names):
            with suppress(FileNotFoundError):  # its process has just removed the leftover
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
    except OSError:  # some file systems have no locks
        return False
    finally:
        os.close(handle)
    return False


def captures() -> Path:
    """Return the folder for files that are derived from incident bundles."""
    return _ensure(settings.CONFIG.data_dir / "captures")


def create() -> None:
    """Create all folders. Raises Unavailable with the name of the folder that fails, or OSError for disk errors."""
    for folder in (uploads, scratch, captures):
        folder()


def check_writable() -> None:
    """Raise Unavailable or OSError if a folder does not accept new files. Missing folders are created."""
    for folder in (uploads, scratch, captures):
        open_temporary(folder()).close()


def open_temporary(folder: Path) -> BinaryIO:
    """Open an unnamed file in one of these folders. Raises Unavailable, or OSError only if the disk is the cause."""
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
        if space.is_disk_error(error):  # ``blobs``, ``problems`` and ``jobs.is_outage`` handle these errors
            raise
        raise _unavailable(folder.name, error) from error
    return folder


def _unavailable(folder: str, error: OSError) -> Unavailable:
    logger.error("folder_unusable", folder=folder, error=error.strerror)
    detail = f"The server cannot use its folder {folder} for temporary files: {error.strerror}."
    return Unavailable(detail, retry_after=10)
