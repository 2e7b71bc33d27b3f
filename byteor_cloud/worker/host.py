"""Lock files of the workers on this host, which show without delay which worker processes are dead."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import connection


def lock_folder() -> Path:
    """Return the folder for the lock files of this host's workers that use this database.

    On Linux, it is another folder after each boot.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = platform.node()
    known = connection.settings_dict
    identity = "|".join(str(part) for part in (boot, known["HOST"], known["PORT"], known["NAME"]))
    path: Path = settings.CONFIG.data_dir / "workers" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    return path


def delete_dead_workers(*, except_for: int | None) -> None:
    """Delete the rows of workers on this host whose lock files are unlocked, because their processes are dead."""
    try:
        paths = [path for path in lock_folder().iterdir() if path.name.isdigit() and path.name != str(except_for)]
    except OSError:
        return  # without the folder, dead workers are found by their old heartbeats
    for path in paths:
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # the file is locked, so its process is alive
        else:
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM procrastinate_workers WHERE id = %s", [int(path.name)])
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(file)
