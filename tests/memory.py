"""How much memory a process used at most, as Linux counts it. Without Linux these tests are skipped."""

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

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process's memory")


def used(pid: int | str = "self") -> int:
    """Return how many bytes of memory the process has now."""
    return _number(Path(f"/proc/{pid}/status").read_text(), "VmRSS")


def peak(pid: int | str = "self") -> int:
    """Return the most bytes of memory that the process had since it started, or since ``forget_peak``."""
    return _number(Path(f"/proc/{pid}/status").read_text(), "VmHWM")


def forget_peak(pid: int | str = "self") -> None:
    """Let the peak of a process begin at what it uses now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _number(status: str, name: str) -> int:
    return int(status.split(f"{name}:")[1].split(maxsplit=1)[0]) * 1024


# A process that is sealed can read a file of /proc only if it was opened before.
_WATCHED = """
import sys
status = open("/proc/self/status")
from byteor_cloud.captures import process as capture_process
idle = status.read()
capture_process.main()
status.seek(0)
print(idle + "\\0" + status.read(), file=sys.stderr)
"""


def run_capture_process(
    request: Mapping[str, Any], scratch: Path, environment: Mapping[str, str] | None = None
) -> tuple[bytes, int]:
    """Run the process of captures; return its last line, and how many bytes of memory it took beyond its start."""
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
        *_, last = process.stdout  # before the input is closed, which would end the process
        idle, done = process.stderr.read().decode().split("\0")
    return last.rstrip(b"\n"), _number(done, "VmHWM") - _number(idle, "VmRSS")
