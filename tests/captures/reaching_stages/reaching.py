"""An op that tries to reach out of the replay process. The payload selects the attempt."""

import ctypes
import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH = 16


def native(name: str, *arguments: object) -> str:
    """Call a C function directly, so no audit hook sees the action. Return its result, or the error's name."""
    ctypes.set_errno(0)
    result = getattr(_LIBC, name)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else f"{name} returned {result}"


ATTEMPTS: dict[bytes, Callable[[], object]] = {
    b"connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    b"resolve": lambda: socket.getaddrinfo("localhost", 9),
    b"program": lambda: subprocess.run(["/bin/true"], check=False),
    b"fork": os.fork,
    b"print": lambda: print("a line of an op", flush=True),
    b"native socket": lambda: native("socket", socket.AF_INET, socket.SOCK_STREAM, 0),
    b"native program": lambda: native("execl", b"/bin/true", b"true", None),
    b"native fork": lambda: native("fork"),
    b"native trace": lambda: native("ptrace", _PTRACE_ATTACH, os.getppid(), 0, 0),
    b"native signal": lambda: native("kill", os.getppid(), 0),
    b"native io_uring": lambda: native("syscall", 425, 1, 0),
    b"secret": lambda: native("open", os.environb[b"SECRET"], os.O_RDONLY),
    b"parent": lambda: native("open", b"/proc/%d/environ" % os.getppid(), os.O_RDONLY),
    b"itself": lambda: native("open", b"/proc/self/environ", os.O_RDONLY),
    b"other file": lambda: native("open", os.environb[b"SECRET"] + b".new", os.O_WRONLY | os.O_CREAT, 0o600),
    b"own folder": lambda: native("access", b".", os.W_OK),
    b"read": lambda: sys.stdin.read() if select.select([sys.stdin], [], [], 0)[0] else "it would wait",
}


def validate(argument: str | None) -> str | None:
    """Return an error message if there is an argument, otherwise None."""
    return None if argument is None else "it takes no argument"


def process(payload: bytes, params: dict[str, Any] | None) -> bytes | None:
    """Make the attempt and return its outcome."""
    if payload == b"allocate":
        bytearray(1 << 30)
    try:
        return repr(ATTEMPTS[payload]()).encode()
    except Exception as error:
        return type(error).__name__.encode()
