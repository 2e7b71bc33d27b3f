"""Runs ``byteor`` and other programs in separate processes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTEOR = Path(sys.executable).with_name("byteor")


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment variables of a process whose configuration is in the folder."""
    kept = {"PATH": f"{BYTEOR.parent}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    return {**kept, "XDG_CONFIG_HOME": str(folder / "config"), **variables}


def run(*command: str, env: Mapping[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. By default, its output is piped, and its input is empty."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command, env=env, text=True, encoding="utf-8", timeout=120, check=False, **options)


def run_on_terminal(*command: str, env: Mapping[str, str], columns: int = 80) -> str:
    """Run a command on a terminal with this many columns, and return its output, including escape codes."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, columns))
    with subprocess.Popen(command, env={"TERM": "xterm", **env}, stdin=side, stdout=side, stderr=side):
        os.close(side)
        seen = b""
        try:
            while part := os.read(main, 65_536):
                seen += part
        except OSError:  # Linux reports the end of a terminal as an error
            pass
        os.close(main)
    return seen.decode().replace("\r\n", "\n")
