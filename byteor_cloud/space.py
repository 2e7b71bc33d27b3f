"""The space that is left below the data folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError
from psycopg import errors as pg

# Two segments of PostgreSQL's write-ahead log: without room for the next one it stops, and with it every read.
LOW_BYTES = 32 << 20
LOW_SHARE = 0.05  # of a small disk
LOW_FILES = 64
_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def is_low(folder: Path | None = None) -> bool:
    """Tell whether the disk below the folder, by default the data folder, is as good as full."""
    try:
        disk = os.statvfs(settings.CONFIG.data_dir if folder is None else folder)
    except OSError:  # not there: others say so better
        return False
    left = disk.f_bavail * disk.f_frsize
    return left < min(LOW_BYTES, disk.f_blocks * disk.f_frsize * LOW_SHARE) or 0 <= disk.f_favail < min(
        LOW_FILES, disk.f_files
    )


def is_low_for_database() -> bool:
    """Tell whether the disk of the embedded database is as good as full; another database's disk is not ours to see."""
    return settings.CONFIG.database_url is None and is_low()


def is_disk_error(error: BaseException) -> bool:
    """Tell whether a disk caused the error: it is full, read-only or broken, or the database says that its own is full.

    Such an error passes when somebody makes space; nothing is wrong with what was asked for.
    """
    if isinstance(error, OSError):
        return error.errno in _ERRNOS
    return isinstance(error, DatabaseError) and isinstance(error.__cause__, (pg.DiskFull, pg.IoError))
