"""The open connections of a process, and the choice of those to close when the limit is near.

A connection costs a file descriptor while the server waits for its client. Without this choice, idle connections from
one address could keep everybody else out until they time out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

# A caller keeps this many connections on which its credential was verified, however many other connections there are.
KEPT_PER_CALLER = 64


class Client(Protocol):
    """The attributes of a connection that the choice depends on."""

    address: str
    caller: str | None  # the caller whose credential was verified on the connection
    quiet_since: float  # when the last response ended or the connection was opened (``time.monotonic``)
    is_waited_for: bool  # whether the server is waiting for the client to send or to read
    is_hung_up: bool

    def hang_up(self) -> None:
        """Close the connection."""


class OpenConnections[C: Client]:
    """A process's open connections. ``limit`` is how many it may have."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The margin is for connections that are accepted in one burst before ``add`` is called for the first of them.
        self._bound = limit - max(limit // 8, 32)
        self._clients: set[C] = set()
        self._closing = 0

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[C]:
        return iter(list(self._clients))

    def add(self, client: C) -> None:
        """Add a new connection, and close others if there are too many."""
        self._clients.add(client)
        if len(self._clients) - self._closing > self._bound:
            self._close(max(1, self._limit // 32))

    def discard(self, client: C) -> None:
        """Remove a connection that has been closed."""
        if client in self._clients:
            self._clients.discard(client)
            self._closing -= client.is_hung_up

    def _close(self, count: int) -> None:
        for client in choose([each for each in self._clients if not each.is_hung_up], count):
            client.hang_up()
            self._closing += 1


def choose[C: Client](clients: list[C], count: int) -> list[C]:
    """Return up to ``count`` connections to close. Connections whose clients wait for the server are never chosen.

    Connections without a verified credential are chosen first. Each choice takes the address that has most of these
    connections left, and of them the one that has been quiet longest. Then follow connections of verified callers,
    those that have been quiet longest first, except for each caller's ``KEPT_PER_CALLER`` most recently used ones.
    """
    by_address: dict[str, list[C]] = defaultdict(list)
    by_caller: dict[str, list[C]] = defaultdict(list)
    for client in sorted(clients, key=lambda each: each.quiet_since, reverse=True):
        if client.is_waited_for:
            if client.caller is None:
                by_address[client.address].append(client)
            else:
                by_caller[client.caller].append(client)
    chosen: list[C] = []
    largest = [(-len(own), address) for address, own in by_address.items()]
    heapify(largest)
    while len(chosen) < count and largest:
        size, address = heappop(largest)
        chosen.append(by_address[address].pop())
        if by_address[address]:
            heappush(largest, (size + 1, address))
    surplus = [client for own in by_caller.values() for client in own[KEPT_PER_CALLER:]]
    surplus.sort(key=lambda each: each.quiet_since)
    return (chosen + surplus)[:count]


def note_caller(environ: Mapping[str, Any], caller: str) -> None:
    """Record on the request's connection that a credential of ``caller`` was verified."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.caller = caller


def note_address(environ: Mapping[str, Any], address: str) -> None:
    """Record the address that the connection counts for, which may differ from the peer's."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.address = address


def address_of(environ: Mapping[str, Any]) -> str:
    """Return the address that the request's connection counts for."""
    connection = environ.get("gunicorn.socket")
    return str(environ.get("REMOTE_ADDR", "")) if connection is None else str(connection.address)
