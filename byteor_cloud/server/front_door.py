"""gunicorn's worker class: an event loop in which a slow client costs little more than a file descriptor.

A greenlet serves each connection. While it waits for the client, it occupies no thread and, because of
``byteor_cloud.api.bodies``, no database connection. Clients below the minimum rate are disconnected. For clients so
fast that the server never waits for them, the greenlet pauses now and then to let others run.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, override

import gevent
from gevent.monkey import get_original
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.workers import ggevent
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from byteor_cloud import errors
from byteor_cloud.concurrency.event_loop import Turns
from byteor_cloud.ids import uuid7
from byteor_cloud.server import draining
from byteor_cloud.server.agent_requests import ShortCut
from byteor_cloud.server.open_connections import OpenConnections

PATIENCE_S = 20.0
MIN_BYTES_PER_S = 1000.0
ACCEPTED_PER_TURN = 32
_PIECE = 16 * 1024
# gunicorn requests up to 1 MiB of a body per call. For objects over 128 KiB, the kernel provides new memory pages each
# time, which takes longer than copying and hashing the bytes.
_RECEIVED_BYTES = 124 * 1024
_LINGER_S = 2.0
_LINGER_BYTES = 1024 * 1024
# The size of the kernel's send buffer. By default it grows to several MiB, and the server would have to produce these
# for each of a thousand slow readers.
_SEND_BUFFER = 128 * 1024
# After this many bytes, or pieces, have been sent or received, other greenlets run.
_BURST_BYTES = 1024 * 1024
_BURST_PIECES = 64
# The original poll, since gevent's would wait for the event loop.
_poll = get_original("select", "poll")


# Turns for requests that arrive before the server is ready to read them. Rate limits already bound those of verified
# callers. All others, and those on a connection after a refusal, share turns that take at most a quarter of the time
# while more of them are waiting.
_turns_of_callers, _turns_of_strangers = Turns(), Turns(rest=3.0)


class WaitBudget:
    """The time that a client may take for one request or response: ``PATIENCE_S``, plus one second per 1,000 bytes.

    Only time in which the server waits for the client counts, not time in which the server works.
    """

    def __init__(self) -> None:
        self._waited = 0.0
        self._moved = 0

    @property
    def left_s(self) -> float:
        """The client's remaining seconds. Raises TimeoutError if none are left."""
        left = PATIENCE_S + self._moved / MIN_BYTES_PER_S - self._waited
        if left <= 0:
            # For ECONNRESET, gunicorn closes the connection without logging a traceback.
            raise TimeoutError(errno.ECONNRESET, "The client is too slow.")
        return left

    def spend(self, seconds: float, moved: int) -> None:
        """Count the seconds of one wait, and the bytes that were sent or received in it."""
        self._waited += seconds
        self._moved += moved


class PacedSocket:
    """A client's socket that raises TimeoutError if the client is slower than its ``WaitBudget`` allows."""

    def __init__(self, sock: Any, *, keepalive_s: float, address: str = "") -> None:
        self._sock = sock
        self.address = address
        self.caller: str | None = None
        self.quiet_since = time.monotonic()
        self.is_waited_for = False
        self.is_hung_up = False
        self._moved_bytes = self._moved_pieces = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._keepalive_s = keepalive_s
        self._has_responded = False  # whether bytes were sent since bytes were last received
        self._reading = WaitBudget()
        self._writing = WaitBudget()
        self._was_served = self._was_refused = False
        self.is_idle = True
        self.is_handled = False  # whether the server is handling a request of the client
        self.short_cut: ShortCut | None = None

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute from the wrapped socket."""
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        """Receive at most ``size`` bytes. Raises TimeoutError if the client is too slow."""
        if self._has_responded:
            # These bytes may belong to the next request, which may start much later.
            self._has_responded, self.is_idle = False, True
            self._reading = WaitBudget()
        self._sock.settimeout(max(self._keepalive_s, PATIENCE_S) if self.is_idle else self._reading.left_s)
        began = time.monotonic()
        self.is_waited_for = True
        try:
            data: bytes = self._sock.recv(min(size, _RECEIVED_BYTES))
        except TimeoutError:
            raise TimeoutError(errno.ECONNRESET, "The client is too slow.") from None
        except OSError:
            if self.is_hung_up:
                return b""  # for gunicorn, this means that the client has closed the connection
            raise
        finally:
            self.is_waited_for = False
        if not self.is_idle:
            self._reading.spend(time.monotonic() - began, len(data))
        self.is_idle = False
        self._count(len(data))
        return data

    def _count(self, moved: int) -> None:
        """Let other greenlets run now and then, even if the client is so fast that the server never waits for it."""
        self._moved_bytes += moved
        self._moved_pieces += 1
        if self._moved_bytes >= _BURST_BYTES or self._moved_pieces >= _BURST_PIECES:
            self._moved_bytes = self._moved_pieces = 0
            gevent.sleep(0)

    def let_others_run(self, *, has_more: bool) -> None:
        """Wait for a turn if the client's next request has already arrived. Call this between two requests.

        ``has_more`` states that bytes of the next request have already been read.
        """
        if not self._has_responded:
            return
        self.quiet_since = time.monotonic()
        if has_more or self._is_readable():
            is_limited = self.caller is not None and not self._was_refused
            (_turns_of_callers if is_limited else _turns_of_strangers).wait(self.address)

    def _is_readable(self) -> bool:
        poller = _poll()
        poller.register(self._sock.fileno(), select.POLLIN)
        return bool(poller.poll(0))

    @property
    def may_be_hung_up(self) -> bool:
        """Whether a shutdown may close the connection: it is idle, or a response was sent and no request is handled."""
        return self.is_idle or (self._was_served and not self.is_handled)

    def hang_up(self) -> None:
        """Close the connection, even while the server is waiting for the client."""
        self.is_hung_up = True
        with suppress(OSError):  # the client may have closed the connection already
            self._sock.shutdown(socket.SHUT_RDWR)

    def linger(self) -> None:
        """Finish the response, then read and discard for a moment what the client is still sending.

        Closing a socket with unread bytes resets the connection, and the client might lose the response.
        """
        deadline, bytes_left = time.monotonic() + _LINGER_S, _LINGER_BYTES
        with suppress(OSError):  # the client may have closed the connection
            self._sock.shutdown(socket.SHUT_WR)
            while bytes_left > 0 and (wait_s := deadline - time.monotonic()) > 0:
                self._sock.settimeout(wait_s)
                if not (data := self._sock.recv(_PIECE)):
                    break
                bytes_left -= len(data)

    def sendall(self, data: bytes) -> None:
        """Send all of ``data``. Raises TimeoutError if the client reads too slowly."""
        if not self._has_responded:
            self._has_responded, self._was_served, self._writing = True, True, WaitBudget()
            self._was_refused = data[9:10] == b"4"  # the status is in "HTTP/1.1 429 "
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self._sock.settimeout(self._writing.left_s)
            began = time.monotonic()
            self.is_waited_for = True
            try:
                self._sock.sendall(piece)
            except TimeoutError:
                raise TimeoutError(errno.ECONNRESET, "The client reads too slowly.") from None
            finally:
                self.is_waited_for = False
            self._writing.spend(time.monotonic() - began, len(piece))
            self._count(len(piece))


class BurstServer(StreamServer):  # type: ignore[misc]  # gevent ships no types
    """gevent's server, but it accepts several connections in each iteration of the event loop.

    With several processes, gunicorn sets the number to one. In a burst of thousands of connections, clients would then
    wait for as many iterations.
    """

    max_accept = property(lambda self: ACCEPTED_PER_TURN, lambda self, value: None)


# gunicorn's worker creates its server through this name.
ggevent.StreamServer = BurstServer


_TYPES = {414: errors.UriTooLong.code, 431: errors.HeadersTooLarge.code, 500: "internal"}


def write_error(sock: PacedSocket, status: int, reason: str, message: str) -> None:
    """Respond with a problem if gunicorn rejects a request, for example as malformed HTTP, or fails to handle it.

    The path may not have been parsed, so the problem's ``instance`` is always ``/``.
    """
    request_id = str(uuid7())
    problem = errors.problem(
        code=_TYPES.get(status, "malformed_request"),
        title=reason,
        status=status,
        detail=errors.shorten(message or reason),
        instance="/",
        request_id=request_id,
    )
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nX-Request-ID: {request_id}\r\n"
        f"Content-Type: {errors.CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)
    sock.linger()


# gunicorn itself would respond with an HTML page.
util.write_error = write_error


class ConnectionWorker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's gevent worker with a minimum rate for clients. Its shutdown does not wait for idle clients."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: OpenConnections[PacedSocket] = OpenConnections(self.worker_connections)

    @override
    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection until it is closed."""
        paced = PacedSocket(client, keepalive_s=self.cfg.keepalive, address=str(addr[0]))
        self._clients.add(paced)
        try:
            paced.short_cut = ShortCut(self, paced, listener, addr)
            AsyncWorker.handle(self, listener, paced, addr)
        finally:
            self._clients.discard(paced)

    @override
    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Handle one request of a connection."""
        sock.is_handled = True
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.is_handled = False

    @override
    def timeout_ctx(self) -> AbstractContextManager[None]:
        """Return a context without a timeout, since ``PacedSocket`` already limits the wait for a request."""
        return nullcontext()

    @override
    def notify(self) -> None:
        """Report to the arbiter that this process is alive. gunicorn calls this every second.

        During shutdown, also start ``draining`` and close the connections that need not stay open (``may_be_hung_up``).
        """
        super().notify()
        if not self.alive:
            draining.start()
            for client in self._clients:
                if client.may_be_hung_up:
                    client.hang_up()
