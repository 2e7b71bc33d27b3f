"""The CPU, memory and disk readings that a heartbeat contains."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from pathlib import Path

from byteor.engine.canonical import Json


class ResourceMeter:
    """Measures this process and the free disk space; CPU usage is an average since the previous reading."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = self._read_at = time.monotonic()
        self._cpu_s = time.process_time()

    @property
    def uptime_s(self) -> int:
        """The whole seconds since the agent started."""
        return int(time.monotonic() - self._started)

    def read(self) -> Json:
        """Return the CPU percentage since the previous reading, the memory in use and the free disk space.

        Without /proc, such as on macOS, the memory is the peak.
        """
        now, cpu_s = time.monotonic(), time.process_time()
        elapsed = max(now - self._read_at, 1e-3)
        percent = round(100 * (cpu_s - self._cpu_s) / elapsed, 1)
        self._read_at, self._cpu_s = now, cpu_s
        return {
            "cpu_percent": percent,
            "memory_bytes": _resident_bytes(),
            "disk_free_bytes": shutil.disk_usage(self._folder).free,
        }


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # there is no /proc: use the peak, which macOS measures in bytes, other systems in KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return pages * os.sysconf("SC_PAGE_SIZE")
