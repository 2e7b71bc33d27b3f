"""Files and folders that one process of a test run creates and all of its processes use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a file or folder of this run. The first process that calls this creates it, and the others wait.

    ``make`` gets a path, and creates the file or folder there. The result is then renamed, so that it is never visible
    half-finished.
    """
    run = Path(os.environ["BYTEOR_CLOUD_DATA_DIR"])
    whole, unfinished = run / name, run / f"{name}.unfinished"
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            make(unfinished)
            unfinished.rename(whole)
    return whole
