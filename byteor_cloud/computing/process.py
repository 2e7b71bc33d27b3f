"""The child process that computes for one API process, without Django, secrets, database and sockets.

``python -m byteor_cloud.computing.process PARENT TURN SECONDS CAPTURES`` answers the requests on its standard input,
which is a socket, one after the other. ``PARENT`` is the id of the process that started it, ``TURN`` the file of the
host's turn, and ``CAPTURES`` the only folder that it can read. The kernel ends the process if one request takes more
than ``SECONDS`` of processor time.
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
from byteor_cloud.computing.computations import COMPUTATIONS, EXPECTED, HEAD, Answer, installed_ops

_MOST_USES = 2_000  # after which the process is replaced, and so is what it leaked
_MOST_KIB = sealing.MEMORY_BYTES // 1024 // 2  # of memory beyond the start, which Python seldom returns to the system


def main() -> None:
    """Answer requests until the parent closes the socket."""
    host_share.end_with_parent(int(sys.argv[1]))
    host_share.lower_priority()
    turn, seconds = host_share.Turn(Path(sys.argv[2])), int(sys.argv[3])
    # What an op of a package reads or prints must not mix with the messages.
    parent = socket.socket(fileno=os.dup(0))
    parent.setblocking(True)  # gevent made it otherwise
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
            message = _answer(request)
        uses += 1
        is_last = uses >= _MOST_USES or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > idle_kib + _MOST_KIB
        parent.sendall(HEAD.pack(len(message), is_last) + message)


def _limit_time(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _answer(request: bytes) -> bytes:
    try:
        name, args, kwargs = pickle.loads(request)  # noqa: S301  the parent wrote it
        return pickle.dumps(Answer(result=COMPUTATIONS[name](*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        answer = Answer(needs_more_memory=True)
    except tuple(EXPECTED.values()) as error:
        answer = Answer(error=(type(error).__qualname__, error.args, vars(error)))
    except Exception:  # a fault of the program, which the parent logs
        answer = Answer(crash=traceback.format_exc())
    return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)


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
