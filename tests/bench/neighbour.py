"""The neighbor in ``make bench ARGS=neighbours``: heartbeats of agents, a person's lists, and probes.

``python -m tests.bench.neighbour FILE`` sends these requests on schedule over persistent connections, and prints how
many milliseconds each took. A request is sent when it is due, even if earlier requests (at most 200 of each kind) are
still waiting, and its time starts when it was due. Otherwise a server that stalls would appear fast.
"""

from __future__ import annotations

import base64
import json
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.traffic import response_end

TIMEOUT_S = 10.0
_MOST_CONNECTIONS = 200  # the limit for each kind of request


@dataclass(frozen=True)
class Kind:
    """One kind of request: the bytes of successive requests, and how many are due per second."""

    requests: Sequence[bytes]
    per_s: float


@dataclass
class Measured:
    """The results of one kind of request. A failed request counts with the whole timeout."""

    times_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(eq=False)
class _Connection:
    kind: str
    socket: socket.socket
    sent: bytes = b""
    due: float = 0.0
    is_reused: bool = False
    received: bytearray = field(default_factory=bytearray)


def save(path: Path, kinds: Mapping[str, Kind], *, port: int, address: str, seconds: float) -> None:
    """Write the file for ``main``. Only its owner may read it, because it contains credentials."""
    path.touch(mode=0o600)
    shown = {
        name: [[base64.b64encode(each).decode() for each in kind.requests], kind.per_s] for name, kind in kinds.items()
    }
    path.write_text(json.dumps({"kinds": shown, "port": port, "address": address, "seconds": seconds}))


class _Neighbour:
    def __init__(self, kinds: Mapping[str, Kind], port: int, address: str) -> None:
        self._kinds, self._port, self._address = kinds, port, address
        self._selector = selectors.DefaultSelector()
        self._idle: dict[str, list[_Connection]] = {name: [] for name in kinds}
        self._busy: set[_Connection] = set()
        self.found = {name: Measured() for name in kinds}

    def run(self, seconds: float) -> None:
        """Send for this many seconds, then wait for requests in progress."""
        began = time.monotonic()
        sent = dict.fromkeys(self._kinds, 0)
        while (now := time.monotonic()) < began + seconds:
            next_due = began + seconds
            for name, kind in self._kinds.items():
                while (due := began + sent[name] / kind.per_s) <= now:
                    self._begin(name, kind.requests[sent[name] % len(kind.requests)], due)
                    sent[name] += 1
                next_due = min(next_due, due)
            self._wait(max(0.0, next_due - time.monotonic()))
        while self._busy:
            self._wait(0.1)

    def _begin(self, name: str, data: bytes, due: float) -> None:
        if self._idle[name]:
            connection = self._idle[name].pop()
            connection.is_reused = True
        elif sum(each.kind == name for each in self._busy) >= _MOST_CONNECTIONS:
            self._fail(name, "too many unanswered")
            return
        else:
            connection = self._connect(name)
        connection.sent, connection.due = data, due
        self._busy.add(connection)
        self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def _connect(self, name: str) -> _Connection:
        opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.bind((self._address, 0))
        opened.connect_ex(("127.0.0.1", self._port))
        connection = _Connection(name, opened)
        self._selector.register(opened, selectors.EVENT_READ, connection)
        return connection

    def _wait(self, seconds: float) -> None:
        for key, mask in self._selector.select(seconds):
            connection: _Connection = key.data
            try:
                if mask & selectors.EVENT_WRITE:
                    connection.socket.send(connection.sent)  # the request fits into the socket's buffer
                    self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
                if mask & selectors.EVENT_READ:
                    self._receive(connection)
            except OSError as error:
                self._lose(connection, type(error).__name__)
        now = time.monotonic()
        for connection in [each for each in self._busy if now - each.due > TIMEOUT_S]:
            self._drop(connection)
            self._fail(connection.kind, "timeout")

    def _receive(self, connection: _Connection) -> None:
        data = connection.socket.recv(1 << 18)
        if not data:
            self._lose(connection, "closed")
            return
        connection.received += data
        if (end := response_end(connection.received)) is None:
            return
        took_ms = (time.monotonic() - connection.due) * 1000
        status = bytes(connection.received[9:12]).decode()
        if status == "200":
            self.found[connection.kind].times_ms.append(took_ms)
        else:
            self._fail(connection.kind, status)
        closes = b"\r\nconnection: close" in bytes(connection.received[:end]).partition(b"\r\n\r\n")[0].lower()
        del connection.received[:end]
        self._busy.discard(connection)
        if closes:
            self._drop(connection)
        else:
            self._idle[connection.kind].append(connection)

    def _lose(self, connection: _Connection, why: str) -> None:
        """Drop the connection. If a request was waiting for its response, resend it or count a failure.

        The request is resent only if the connection was reused and has received no part of the response.
        """
        was_busy = connection in self._busy
        self._drop(connection)
        if not was_busy:
            return
        if connection.is_reused and not connection.received:
            again = self._connect(connection.kind)
            again.sent, again.due = connection.sent, connection.due
            self._busy.add(again)
            self._selector.modify(again.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, again)
        else:
            self._fail(connection.kind, why)

    def _drop(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        if connection in self._idle[connection.kind]:
            self._idle[connection.kind].remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _fail(self, name: str, why: str) -> None:
        self.found[name].failures[why] += 1
        self.found[name].times_ms.append(TIMEOUT_S * 1000)


def main() -> None:
    """Send the requests in the file, and print the times and failures as JSON."""
    given = json.loads(Path(sys.argv[1]).read_text())
    kinds = {
        name: Kind([base64.b64decode(each) for each in requests], per_s)
        for name, (requests, per_s) in given["kinds"].items()
    }
    neighbour = _Neighbour(kinds, given["port"], given["address"])
    neighbour.run(given["seconds"])
    print(json.dumps({name: [each.times_ms, dict(each.failures)] for name, each in neighbour.found.items()}))


if __name__ == "__main__":
    main()
