"""Free ports for servers that run as processes of their own."""

from __future__ import annotations

import contextlib
import secrets
import socket


def free_port() -> int:
    """Return a port on which nobody listens.

    It is below those that the system gives to programs that ask for any, so that none takes it before a server does.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
