"""Prints the outcome. Neither the content of a file nor a failed write may make one outcome look like another."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to stdout, with unprintable characters escaped.

    Otherwise the content of a file could move the cursor, or imitate another line of the output. Raises OSError if
    stdout cannot be written. A closed pipe is not an error: its reader has read enough.
    """
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show a character
        for line in lines:
            print(escape(line))
        if sys.stdout is not None:  # None if the process was started without stdout
            sys.stdout.flush()
    except OSError as error:
        _discard()
        if not isinstance(error, BrokenPipeError):
            raise


def escape(line: str) -> str:
    """Return the line with unprintable characters escaped."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)


def _discard() -> None:
    """Discard the buffered output. Otherwise, the interpreter would fail to write it and change the exit code."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
