"""The compute process of an API process: a child without Django, secrets, database connections and network access.

``python -m byteor_cloud.computing.process PARENT TURN SECONDS CAPTURES`` handles the requests on its standard input,
which is a socket, one after the other. ``PARENT`` is the id of the process that started it, ``TURN`` the lock file of
the host's compute turn, and ``CAPTURES`` the only data folder that it may read. On systems that do not support all
seals (``captures.sealing``), the kernel does not enforce all of this. The kernel kills the process if one request takes
more than ``SECONDS`` of processor time.
"""

from __future__ import annotations

import math
import os
import pickle
import resource
import socket
import sys
import traceback
from pathlib import Path

from byteor_cloud.captures import host_share, sealing
from byteor_cloud.computing.computations import COMPUTATIONS, EXPECTED, HEAD, Outcome, installed_ops

# The process is replaced after this many requests, or when its peak memory has grown by this much since its start.
_MAX_USES = 2_000
_MAX_KIB = sealing.MEMORY_BYTES // 1024 // 2


def main() -> None:
    """Handle requests until the parent closes the socket."""
    host_share.exit_with_parent(int(sys.argv[1]))
    host_share.lower_priority()
    turn, seconds = host_share.Turn(Path(sys.argv[2])), int(sys.argv[3])
    # Ops of installed packages may read or print, which must not interfere with the messages.
    parent = socket.socket(fileno=os.dup(0))
    parent.setblocking(True)  # a socket that gevent created may be non-blocking
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    installed_ops()
    sealing.limit(file_bytes=0)
    sealing.seal(readable=[Path(sys.argv[4])])
    uses, idle_kib = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while request := _receive(parent):
        with turn.held():
            _limit_time(seconds)
            message = _handle(request)
        uses += 1
        is_last = uses >= _MAX_USES or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > idle_kib + _MAX_KIB
        parent.sendall(HEAD.pack(len(message), is_last) + message)


def _limit_time(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _handle(request: bytes) -> bytes:
    try:
        name, args, kwargs = pickle.loads(request)  # noqa: S301  our own parent process wrote the request
        return pickle.dumps(Outcome(result=COMPUTATIONS[name](*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        outcome = Outcome(needs_more_memory=True)
    except tuple(EXPECTED.values()) as error:
        outcome = Outcome(error=(type(error).__qualname__, error.args, vars(error)))
    except Exception:  # a bug, which the parent logs
        outcome = Outcome(crash=traceback.format_exc())
    return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)


def _receive(parent: socket.socket) -> bytes | None:
    """Return the next request, or None if the parent has closed the socket."""
    head = _exactly(parent, HEAD.size)
    return head and _exactly(parent, HEAD.unpack(head)[0])


def _exactly(parent: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = parent.recv(min(count - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


if __name__ == "__main__":
    main()
