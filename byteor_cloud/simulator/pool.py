"""A pool of keep-alive connections to one server, driven by one thread without blocking."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from .wire import BadResponse, Response, read_response

MAX_CONNECTIONS = 1000
_CONNECT_TIMEOUT_S = 10.0
_RESPONSE_TIMEOUT_S = 30.0
# The server closes idle connections after 75 s. The pool stops reusing idle connections earlier, because a request that
# is sent at the moment of the close would be lost.
_MAX_IDLE_S = 50.0
_SLOW_PIECES = 8
_READ_SIZE = 256 * 1024


@dataclass(slots=True)
class Exchange:
    """One request and its outcome. ``owner`` is a number that the caller chooses."""

    owner: int
    request: bytes
    due: float
    slow_send_s: float = 0.0
    patience_s: float = _RESPONSE_TIMEOUT_S
    sent_at: float = 0.0
    done_at: float = 0.0
    response: Response | None = None
    failure: str = ""
    """The reason why there is no response; empty if there is one."""

    @property
    def status(self) -> int:
        """The response's status; 0 if there is none."""
        return self.response.status if self.response is not None else 0


class _Connection:
    __slots__ = ("buffer", "deadline", "exchange", "idle_among", "idle_since", "next_piece_at", "offset", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.exchange: Exchange | None = None
        self.idle_among: list[_Connection] = []  # the list that contains this connection while it is idle
        self.buffer = b""
        self.offset = 0
        self.deadline = self.idle_since = self.next_piece_at = 0.0


class Pool:
    """Sends requests over at most ``limit`` connections. Requests without a free connection wait in order.

    If connections are ``private``, each owner uses only connections of its own, as real agents do.
    """

    def __init__(self, address: tuple[str, int], limit: int = MAX_CONNECTIONS, *, private: bool = False) -> None:
        family, kind, protocol, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        self._socket_kind = (family, kind, protocol)
        self._address: tuple[Any, ...] = found
        self._limit = limit
        self._selector = selectors.DefaultSelector()
        self._connections: set[_Connection] = set()
        self._private = private
        self._idle: dict[int, list[_Connection]] = {}  # by owner; if connections are not private, by 0
        self._idle_count = 0
        self._slow: set[_Connection] = set()
        self._waiting: deque[Exchange] = deque()
        self._done: list[Exchange] = []
        self._checked_at = 0.0
        self.opened = 0
        self.most_open = 0

    @property
    def in_flight(self) -> int:
        """The number of requests that were submitted and are not complete."""
        return len(self._connections) - self._idle_count + len(self._waiting)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a free connection."""
        return len(self._waiting)

    def submit(self, exchange: Exchange) -> None:
        """Send a request when a connection is free. ``poll`` returns the exchange when it is complete."""
        if self._waiting:
            self._waiting.append(exchange)
        else:
            self._start(exchange, time.monotonic())

    def poll(self, timeout_s: float) -> list[Exchange]:
        """Wait up to ``timeout_s`` for network events, and return the completed exchanges."""
        if self._slow:
            timeout_s = min(timeout_s, 0.05)
        for key, events in self._selector.select(0 if self._done else timeout_s):
            connection: _Connection = key.data
            if events & selectors.EVENT_WRITE:
                self._write(connection, time.monotonic())
            elif connection.exchange is not None:
                self._read(connection)
            else:  # the server closed an idle connection
                self._close(connection)
        now = time.monotonic()
        for connection in [each for each in self._slow if each.next_piece_at <= now]:
            self._write(connection, now)
        if now - self._checked_at > 1:
            self._checked_at = now
            for connection in [each for each in self._connections if each.exchange and each.deadline < now]:
                self._fail(connection, "no response in time")
        while self._waiting and self._has_room():
            self._start(self._waiting.popleft(), now)
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections):
            self._close(connection)
        self._selector.close()

    def _has_room(self) -> bool:
        return self._idle_count > 0 or len(self._connections) < self._limit

    def _start(self, exchange: Exchange, now: float) -> None:
        idle = self._idle.setdefault(exchange.owner if self._private else 0, [])
        while idle:
            connection = idle.pop()
            self._idle_count -= 1
            if now - connection.idle_since < _MAX_IDLE_S:
                self._use(connection, exchange, now)
                self._write(connection, now)
                return
            self._close(connection)
        if len(self._connections) >= self._limit:
            self._waiting.append(exchange)
            return
        self._connect(exchange, now)

    def _connect(self, exchange: Exchange, now: float) -> None:
        sock = socket.socket(*self._socket_kind)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock)
        self._connections.add(connection)
        self.opened += 1
        self.most_open = max(self.most_open, len(self._connections))
        self._selector.register(sock, selectors.EVENT_WRITE, connection)
        self._use(connection, exchange, now)
        connection.deadline = now + _CONNECT_TIMEOUT_S
        code = sock.connect_ex(self._address)
        if code not in {0, errno.EINPROGRESS}:
            self._fail(connection, _describe(OSError(code, os.strerror(code))))

    @staticmethod
    def _use(connection: _Connection, exchange: Exchange, now: float) -> None:
        connection.exchange, connection.offset, connection.buffer = exchange, 0, b""
        exchange.sent_at = now
        connection.deadline = now + exchange.patience_s

    def _write(self, connection: _Connection, now: float) -> None:
        exchange = connection.exchange
        assert exchange is not None  # noqa: S101  only a connection with a request waits to write
        request = exchange.request
        piece = request
        if exchange.slow_send_s:
            size = max(1, -(-len(request) // _SLOW_PIECES))
            piece = request[connection.offset : connection.offset + size]
        elif connection.offset:
            piece = request[connection.offset :]
        try:
            connection.offset += connection.sock.send(piece)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(connection, _describe(error))
            return
        if connection.offset == len(request):
            self._slow.discard(connection)
            connection.deadline = now + exchange.patience_s
            self._watch(connection, selectors.EVENT_READ)
        elif exchange.slow_send_s:
            connection.next_piece_at = now + exchange.slow_send_s / _SLOW_PIECES
            self._slow.add(connection)
            self._watch(connection, selectors.EVENT_READ)  # the server may respond before it has read everything
        else:
            self._watch(connection, selectors.EVENT_WRITE)

    def _watch(self, connection: _Connection, events: int) -> None:
        if self._selector.get_key(connection.sock).events != events:
            self._selector.modify(connection.sock, events, connection)

    def _read(self, connection: _Connection) -> None:
        exchange = connection.exchange
        assert exchange is not None  # noqa: S101  ``poll`` reads only from a connection with a request
        try:
            data = connection.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(connection, _describe(error))
            return
        if not data and not connection.buffer:
            self._fail(connection, "connection closed without a response")
            return
        connection.buffer = connection.buffer + data if connection.buffer else data
        try:
            response = read_response(connection.buffer, is_closed=not data)
        except BadResponse as error:
            self._fail(connection, str(error))
            return
        if response is None:
            if not data:
                self._fail(connection, "connection closed within a response")
            return
        exchange.response = response
        # A process that accepts no more long polls responds with 304 and Retry-After. The next connection may reach
        # another process.
        is_turned_away = response.status == 304 and response.retry_after_s is not None
        is_reusable = (
            response.keeps_connection
            and not is_turned_away
            and bool(data)
            and connection.offset == len(exchange.request)
        )
        self._finish(connection, exchange, is_reusable=is_reusable)

    def _fail(self, connection: _Connection, reason: str) -> None:
        exchange = connection.exchange
        assert exchange is not None  # noqa: S101  only a connection with a request fails
        exchange.failure = reason
        self._finish(connection, exchange, is_reusable=False)

    def _finish(self, connection: _Connection, exchange: Exchange, *, is_reusable: bool) -> None:
        exchange.done_at = time.monotonic()
        connection.exchange = None
        self._slow.discard(connection)
        self._done.append(exchange)
        if not is_reusable:
            self._close(connection)
            return
        connection.idle_since = exchange.done_at
        connection.idle_among = self._idle.setdefault(exchange.owner if self._private else 0, [])
        connection.idle_among.append(connection)
        self._idle_count += 1

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if connection in connection.idle_among:
            connection.idle_among.remove(connection)
            self._idle_count -= 1
        self._selector.unregister(connection.sock)
        connection.sock.close()


def _describe(error: OSError) -> str:
    """Return a short description, which is the same for all errors of a kind, so that they can be counted."""
    return (error.strerror or type(error).__name__).lower()
