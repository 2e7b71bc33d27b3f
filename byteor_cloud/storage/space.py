"""Checks of the free disk space in the data folder, and of errors that a disk causes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError
from psycopg import errors as pg

# A disk is almost full if fewer than LOW_BYTES bytes and less than LOW_SHARE of it are free, or if fewer than LOW_FILES
# more files can be created. LOW_BYTES is two segments of PostgreSQL's write-ahead log: without space for the next
# segment, PostgreSQL stops, even for reads.
LOW_BYTES = 32 << 20
LOW_SHARE = 0.05
LOW_FILES = 64
_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def is_low(folder: Path | None = None) -> bool:
    """Return whether the disk of a folder (by default the data folder) is almost full."""
    try:
        disk = os.statvfs(settings.CONFIG.data_dir if folder is None else folder)
    except OSError:  # the folder is missing, which other checks report
        return False
    free_bytes = disk.f_bavail * disk.f_frsize
    return free_bytes < min(LOW_BYTES, disk.f_blocks * disk.f_frsize * LOW_SHARE) or 0 <= disk.f_favail < min(
        LOW_FILES, disk.f_files
    )


def is_low_for_database() -> bool:
    """Return whether the embedded database is used and the data folder's disk is almost full.

    Returns False for other databases, whose disk is unknown.
    """
    return settings.CONFIG.database_url is None and is_low()


def is_disk_error(error: BaseException) -> bool:
    """Return whether a full, read-only or broken disk of this host or of the database caused the error.

    The request that failed is valid and can succeed after the disk is repaired.
    """
    if isinstance(error, OSError):
        return error.errno in _ERRNOS
    return isinstance(error, DatabaseError) and isinstance(error.__cause__, (pg.DiskFull, pg.IoError))
