"""An op that tries to reach out of the process of a replay, as the payload says."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

ATTEMPTS: dict[bytes, Callable[[], object]] = {
    b"connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    b"resolve": lambda: socket.getaddrinfo("localhost", 9),
    b"program": lambda: subprocess.run(["/bin/true"], check=False),
    b"fork": os.fork,
    b"print": lambda: print("a line of an op", flush=True),
    b"read": lambda: sys.stdin.read() if select.select([sys.stdin], [], [], 0)[0] else "it would wait",
}


def validate(argument: str | None) -> str | None:
    """Take no argument."""
    return None if argument is None else "it takes no argument"


def process(payload: bytes, params: dict[str, Any] | None) -> bytes | None:
    """Return what happened."""
    try:
        return repr(ATTEMPTS[payload]()).encode()
    except Exception as error:
        return type(error).__name__.encode()
