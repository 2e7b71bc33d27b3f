"""The callers of ``make bench ARGS=neighbours``. ``python -m tests.bench.traffic FILE`` sends the traffic in the file.

A loop over plain sockets sends requests that were built in advance, so that the program uses little processor time.
The program stops after the given time or when its standard input is closed, and prints counts: responses by status (for
``PIPELINED``, received bytes) and closed connections. For ``SPINNING``, it prints the processor time that it used.
"""

from __future__ import annotations

import base64
import json
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

# This placeholder in a request is replaced with a different number each time.
NUMBER = b"@@@@@@@@@@"
_AT_ONCE = 64 * 1024
_REOPEN_AFTER_S = 0.05
_REOPEN_IDLE_AFTER_S = 5.0  # long, because the load is open connections and not the opening of connections
_OPENED_AT_ONCE = 50
# The opening of connections is spread over time, because one server process would accept all that open at the same
# moment.
_OPENED_WITHIN_S, _LONGEST_PAUSE_S = 0.9, 0.15
_TICK_S = 0.02


class Style(StrEnum):
    """How a caller uses its connections."""

    IN_TURN = "in_turn"  # send each request after the response to the previous one
    PIPELINED = "pipelined"  # send as many requests as the server accepts, and discard the responses
    IDLE = "idle"  # open connections and send nothing
    ROTATING = "rotating"  # send heartbeats in turn, and rotate the agent's key once per 25 heartbeats
    SPINNING = "spinning"  # send no requests, but compute for the share ``cores`` of the time


@dataclass(frozen=True)
class Traffic:
    """The traffic of one program. With IN_TURN, successive connections start at successive ``requests``."""

    style: Style
    port: int
    seconds: float
    address: str = "127.0.0.1"
    connections: int = 1
    requests: Sequence[bytes] = ()
    bytes_per_s: float = 0.0
    """The bytes per second that each pipelined connection sends. 0 means full speed."""
    cores: float = 0.0

    def save(self, path: Path) -> None:
        """Write the file for ``load``. Only its owner may read it, because it contains credentials."""
        path.touch(mode=0o600)
        found = {**asdict(self), "requests": [base64.b64encode(each).decode() for each in self.requests]}
        path.write_text(json.dumps(found))

    @classmethod
    def load(cls, path: Path) -> Traffic:
        """Read the file that ``save`` wrote."""
        found = json.loads(path.read_text())
        found["requests"] = [base64.b64decode(each) for each in found["requests"]]
        return cls(**{**found, "style": Style(found["style"])})


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of a request. A header is a keyword: ``Content_Type="text/plain"``."""
    named = {"Host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body or method == "POST":
        named.setdefault("Content-Type", "application/json")
        named["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def response_end(data: bytes | bytearray) -> int | None:
    """Return the length of the response at the start of the bytes, or None if it is incomplete."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = bytes(data[:head_end]).lower()
    start = head_end + 4
    if b"\r\ntransfer-encoding: chunked" in head:
        end = data.find(b"0\r\n\r\n", start)
        while end > start and data[end - 2 : end] != b"\r\n":
            end = data.find(b"0\r\n\r\n", end + 1)
        return None if end < 0 else end + 5
    _, found, after = head.partition(b"\r\ncontent-length:")
    length = int(after.split(b"\r\n", 1)[0]) if found else 0
    return start + length if len(data) >= start + length else None


class _Connection:
    def __init__(self, traffic: Traffic, number: int) -> None:
        self.traffic, self.at = traffic, number
        self.socket: socket.socket | None = None
        self.reopen_at = 0.0
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.sent_bytes = 0
        self.opened_at = 0.0
        self.until_rotation = 0
        self.rotates = False

    def open(self) -> socket.socket:
        self.socket = opened = socket.socket()
        opened.setblocking(False)
        opened.bind((self.traffic.address, 0))
        opened.connect_ex(("127.0.0.1", self.traffic.port))
        self.unsent, self.sent_bytes, self.opened_at = memoryview(b""), 0, time.monotonic()
        self.received.clear()
        return opened


class _Sender:
    """The loop over all connections of one program."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._selector = selectors.DefaultSelector()
        self._number = time.time_ns() // 1000 % 10**10
        self._statuses: Counter[str] = Counter()
        self._requests = list(traffic.requests)
        whole = b"".join(self._requests)
        self._block = whole * (_AT_ONCE // len(whole) + 1) if traffic.style is Style.PIPELINED else b""
        if traffic.bytes_per_s:
            self._block = whole
        self._connections = [_Connection(traffic, number) for number in range(traffic.connections)]
        pause_s = min(_LONGEST_PAUSE_S, _OPENED_WITHIN_S / traffic.connections)
        for number, connection in enumerate(self._connections):
            connection.reopen_at = time.monotonic() + number * pause_s

    def run(self) -> dict[str, int]:
        """Send until the time is over or standard input is closed. Return counts of responses, closings and bytes."""
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        until = time.monotonic() + self._traffic.seconds
        while (now := time.monotonic()) < until:
            self._reopen(now)
            events = self._selector.select(_TICK_S)
            for key, mask in events:
                connection: _Connection | None = key.data
                if connection is None:
                    return dict(self._statuses)  # the parent has closed standard input or exited
                try:
                    self._serve(connection, mask)
                except OSError:
                    self._close(connection)
            if self._traffic.bytes_per_s:
                self._send_paced()
        return dict(self._statuses)

    def _reopen(self, now: float) -> None:
        closed = (each for each in self._connections if each.socket is None and each.reopen_at <= now)
        for connection, _ in zip(closed, range(_OPENED_AT_ONCE), strict=False):
            idle = self._traffic.style is Style.IDLE
            try:
                self._selector.register(
                    connection.open(), selectors.EVENT_READ | (0 if idle else selectors.EVENT_WRITE), connection
                )
            except OSError:
                self._close(connection)

    def _close(self, connection: _Connection) -> None:
        if connection.socket is not None:
            self._statuses["closed"] += 1
            if connection.socket in self._selector.get_map():
                self._selector.unregister(connection.socket)
            connection.socket.close()
        pause_s = _REOPEN_IDLE_AFTER_S if self._traffic.style is Style.IDLE else _REOPEN_AFTER_S
        connection.socket, connection.reopen_at = None, time.monotonic() + pause_s

    def _serve(self, connection: _Connection, mask: int) -> None:
        assert connection.socket is not None
        if mask & selectors.EVENT_READ:
            data = connection.socket.recv(1 << 18)
            if not data:
                self._close(connection)
                return
            if self._traffic.style is Style.PIPELINED:
                self._statuses["bytes"] += len(data)
            else:
                connection.received += data
                self._take_response(connection)
        if mask & selectors.EVENT_WRITE:
            self._send(connection)

    def _send(self, connection: _Connection) -> None:
        """Send the rest of the last request, or the next one.

        After a whole request, wait for the response, except in pipelines. ``_send_paced`` continues paced pipelines.
        """
        assert connection.socket is not None
        if not connection.unsent:
            connection.unsent = memoryview(self._next(connection))
        sent = connection.socket.send(connection.unsent)
        connection.unsent = connection.unsent[sent:]
        connection.sent_bytes += sent
        if not connection.unsent and (self._traffic.style is not Style.PIPELINED or self._traffic.bytes_per_s):
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _send_paced(self) -> None:
        now = time.monotonic()
        for connection in self._connections:
            if connection.socket is None:
                continue
            due = (now - connection.opened_at) * self._traffic.bytes_per_s - connection.sent_bytes
            try:
                while due > 0:
                    connection.unsent = connection.unsent or memoryview(self._block)
                    sent = connection.socket.send(connection.unsent[: int(due) + 1])
                    connection.unsent = connection.unsent[sent:]
                    connection.sent_bytes += sent
                    due -= sent
            except BlockingIOError:
                continue
            except OSError:
                self._close(connection)

    def _next(self, connection: _Connection) -> bytes:
        style = self._traffic.style
        if style is Style.PIPELINED:
            return self._block
        if style is Style.ROTATING:
            rotate, beat = self._requests
            connection.rotates = connection.until_rotation == 0
            connection.until_rotation = 25 if connection.rotates else connection.until_rotation - 1
            return rotate if connection.rotates else beat
        connection.at += 1
        chosen = self._requests[connection.at % len(self._requests)]
        if NUMBER in chosen:
            self._number += 1
            return chosen.replace(NUMBER, b"%010d" % self._number)
        return chosen

    def _take_response(self, connection: _Connection) -> None:
        assert connection.socket is not None
        end = response_end(connection.received)
        if end is None:
            return
        status = bytes(connection.received[9:12]).decode()
        self._statuses[status] += 1
        if connection.rotates and status == "201":
            token = json.loads(bytes(connection.received[:end]).partition(b"\r\n\r\n")[2])["token"].encode()
            self._requests = [_with_token(each, token) for each in self._requests]
        closes = b"\r\nconnection: close" in bytes(connection.received[:end]).partition(b"\r\n\r\n")[0].lower()
        del connection.received[:end]
        if closes:
            self._close(connection)
        else:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)


def _with_token(sent: bytes, token: bytes) -> bytes:
    before, _, rest = sent.partition(b"Bearer ")
    return before + b"Bearer " + token + b"\r\n" + rest.partition(b"\r\n")[2]


def _spin(traffic: Traffic) -> dict[str, int]:
    """Compute for the share ``cores`` (at most 1) of the time, in bursts of a few milliseconds."""
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    began = time.monotonic()
    while (elapsed_s := time.monotonic() - began) < traffic.seconds:
        ahead_s = time.process_time() - traffic.cores * elapsed_s
        if selector.select(max(0.0, ahead_s)):
            break
        until = time.process_time() + 0.005
        while time.process_time() < until:
            pass
    return {"milliseconds": round(1000 * time.process_time())}


def main() -> None:
    """Send the traffic in the file, and print the counts as JSON."""
    traffic = Traffic.load(Path(sys.argv[1]))
    found = _spin(traffic) if traffic.style is Style.SPINNING else _Sender(traffic).run()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
