"""The workers of this machine: the kernel tells at once which of their processes are dead."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import connection


def folder() -> Path:
    """Where the workers of this machine's present boot, on this database, keep their files."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = platform.node()
    known = connection.settings_dict
    told = "|".join(str(part) for part in (boot, known["HOST"], known["PORT"], known["NAME"]))
    found: Path = settings.CONFIG.data_dir / "workers" / hashlib.sha256(told.encode()).hexdigest()[:16]
    return found


def bury_dead(*, except_for: int | None) -> None:
    """Remove the rows of workers whose process on this machine is dead: the kernel has unlocked their files."""
    try:
        paths = [path for path in folder().iterdir() if path.name.isdigit() and path.name != str(except_for)]
    except OSError:
        return  # their heartbeats tell
    for path in paths:
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # it lives
        else:
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM procrastinate_workers WHERE id = %s", [int(path.name)])
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(file)
