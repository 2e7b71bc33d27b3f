"""gunicorn's worker class: an event loop in which a client that sends or reads slowly costs a file descriptor only.

Each connection is served in a greenlet. It holds no thread and, as the views see to it, no database connection while
it waits for the client (``byteor_cloud.api.bodies``). A client that stays below the minimum rate is disconnected.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from contextlib import suppress
from typing import Any, override

from gevent.server import StreamServer
from gunicorn import util
from gunicorn.workers import ggevent
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from byteor_cloud import errors
from byteor_cloud.ids import uuid7

PATIENCE_S = 20.0
MIN_BYTES_PER_S = 1000.0
ACCEPTED_A_TURN = 32
_PIECE = 16 * 1024
_LINGER_S = 2.0
_LINGER_BYTES = 1024 * 1024
# What the kernel holds for a client that does not read. It would take megabytes by itself, and a thousand slow readers
# would have the server work for as many megabytes each.
_SEND_BUFFER = 128 * 1024


class WaitBudget:
    """How long one client may keep the server waiting: ``PATIENCE_S``, and a second more for each 1,000 bytes.

    Only the time in which the server waits for the client counts, not the time in which it works.
    """

    def __init__(self) -> None:
        self._waited = 0.0
        self._moved = 0

    @property
    def left_s(self) -> float:
        """Seconds that the client has left. Raises TimeoutError when there are none."""
        left = PATIENCE_S + self._moved / MIN_BYTES_PER_S - self._waited
        if left <= 0:
            # gunicorn passes over a reset connection without a traceback in the log, whoever causes it.
            raise TimeoutError(errno.ECONNRESET, "The client is too slow.")
        return left

    def spend(self, seconds: float, moved: int) -> None:
        """Count a wait of so many seconds in which so many bytes were moved."""
        self._waited += seconds
        self._moved += moved


class PacedSocket:
    """A client's socket that ends the connection of a client who is slower than its ``WaitBudget`` allows."""

    def __init__(self, sock: Any, *, keepalive_s: float) -> None:
        self._sock = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._keepalive_s = keepalive_s
        self._has_answered = False
        self._reading = WaitBudget()
        self._writing = WaitBudget()
        self._is_hung_up = False
        self.is_idle = True

    def __getattr__(self, name: str) -> Any:
        """Everything else is the socket's own."""
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        """Receive at most ``size`` bytes. Raises TimeoutError when the client is too slow."""
        if self._has_answered:
            # What comes now is the next request: it may be a while until it begins.
            self._has_answered, self.is_idle = False, True
            self._reading = WaitBudget()
        self._sock.settimeout(max(self._keepalive_s, PATIENCE_S) if self.is_idle else self._reading.left_s)
        began = time.monotonic()
        try:
            data: bytes = self._sock.recv(size)
        except TimeoutError:
            raise TimeoutError(errno.ECONNRESET, "The client is too slow.") from None
        except OSError:
            if self._is_hung_up:
                return b""  # to gunicorn the client has gone
            raise
        if not self.is_idle:
            self._reading.spend(time.monotonic() - began, len(data))
        self.is_idle = False
        return data

    def hang_up(self) -> None:
        """End the connection while ``recv`` waits for its next request."""
        self._is_hung_up = True
        with suppress(OSError):  # the client may have been faster
            self._sock.shutdown(socket.SHUT_RDWR)

    def linger(self) -> None:
        """End the answer, and read on for a moment what the client still sends.

        A socket that is closed with bytes unread is reset, and then the client may never see the answer.
        """
        until, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
        with suppress(OSError):  # the client may have gone
            self._sock.shutdown(socket.SHUT_WR)
            while left > 0 and (wait_s := until - time.monotonic()) > 0:
                self._sock.settimeout(wait_s)
                if not (data := self._sock.recv(_PIECE)):
                    break
                left -= len(data)

    def sendall(self, data: bytes) -> None:
        """Send all of ``data``. Raises TimeoutError when the client reads too slowly."""
        if not self._has_answered:
            self._has_answered, self._writing = True, WaitBudget()
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self._sock.settimeout(self._writing.left_s)
            began = time.monotonic()
            try:
                self._sock.sendall(piece)
            except TimeoutError:
                raise TimeoutError(errno.ECONNRESET, "The client reads too slowly.") from None
            self._writing.spend(time.monotonic() - began, len(piece))


class BurstServer(StreamServer):  # type: ignore[misc]  # gevent ships no types
    """gevent's server that accepts several connections a turn of the event loop.

    gunicorn would have it accept one, and in a burst of thousands the next client would wait for as many turns.
    """

    max_accept = property(lambda self: ACCEPTED_A_TURN, lambda self, value: None)


# The name by which gunicorn's worker makes its server.
ggevent.StreamServer = BurstServer


_TYPES = {414: errors.UriTooLong.code, 431: errors.HeadersTooLarge.code, 500: "internal"}


def write_error(sock: PacedSocket, status: int, reason: str, message: str) -> None:
    """Answer what is no HTTP request, or one with too long a head, as the API answers every error.

    Nothing of such a request is known, its path neither.
    """
    request_id = str(uuid7())
    problem = {
        "type": f"urn:byteor:problem:{_TYPES.get(status, 'malformed_request')}",
        "title": reason,
        "status": status,
        "detail": errors.shorten(message or reason),
        "instance": "/",
        "request_id": request_id,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nX-Request-ID: {request_id}\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)
    sock.linger()


# gunicorn's own answer is a page.
util.write_error = write_error


class ConnectionWorker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's gevent worker with a minimum rate for clients, and an end that waits for no idle connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: set[PacedSocket] = set()

    @override
    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection until it ends."""
        paced = PacedSocket(client, keepalive_s=self.cfg.keepalive)
        self._clients.add(paced)
        try:
            AsyncWorker.handle(self, listener, paced, addr)
        finally:
            self._clients.discard(paced)

    @override
    def notify(self) -> None:
        """Tell the arbiter that this process lives; called every second. While it stops, hang up on idle clients."""
        super().notify()
        if not self.alive:
            for client in list(self._clients):
                if client.is_idle:
                    client.hang_up()
