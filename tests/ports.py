"""Free ports for servers that run in separate processes."""

from __future__ import annotations

import contextlib
import secrets
import socket


def free_port() -> int:
    """Return a port on which nobody listens.

    It is below the range from which Linux assigns free ports, so another program hardly ever gets it before the server
    listens.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
