"""The memory of processes, as ``/proc`` shows it on Linux. Tests that need it are skipped on other systems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

MIB = 1024 * 1024

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def used(pid: int | str = "self") -> int:
    """Return the bytes of memory that the process uses."""
    return _number(Path(f"/proc/{pid}/status").read_text(), "VmRSS")


def peak(pid: int | str = "self") -> int:
    """Return the most bytes of memory that the process has used since it started, or since ``reset_peak``."""
    return _number(Path(f"/proc/{pid}/status").read_text(), "VmHWM")


def reset_peak(pid: int | str = "self") -> None:
    """Reset the peak of a process to its current memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _number(status: str, name: str) -> int:
    return int(status.split(f"{name}:")[1].split(maxsplit=1)[0]) * 1024


# A sealed process can read a file in /proc only if it opened the file before it was sealed. ``main`` redirects stderr.
_WATCHED = """
import os
status, found = open("/proc/self/status"), os.fdopen(os.dup(2), "w")
from byteor_cloud.captures import process as capture_process
idle = status.read()
capture_process.main()
status.seek(0)
print(idle + "\\0" + status.read(), file=found)
"""


def run_capture_process(
    request: Mapping[str, Any], scratch: Path, environment: Mapping[str, str] | None = None
) -> tuple[bytes, int]:
    """Run the capture process. Return its last line, and its peak memory minus its idle memory in bytes."""
    with subprocess.Popen(
        [sys.executable, "-c", _WATCHED],
        env={"PATH": os.defpath, "TMPDIR": str(scratch), **(environment or {})}, cwd=scratch,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        *_, last = process.stdout  # while the input stays open, because the process exits when it is closed
        idle, done = process.stderr.read().decode().split("\0")
    return last.rstrip(b"\n"), _number(done, "VmHWM") - _number(idle, "VmRSS")
