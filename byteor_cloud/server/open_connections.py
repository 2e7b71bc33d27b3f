"""The open connections of a process, and which of them are closed when there are almost as many as it may have.

A connection costs a file descriptor while the server waits for its client. Without a bound, the silent connections of
one address would keep everybody else out until they time out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

# A caller keeps this many connections on which a credential was verified, however many others there are.
KEPT_PER_CALLER = 64


class Client(Protocol):
    """A connection, as far as the choice depends on it."""

    address: str
    caller: str | None  # whose credential was verified on the connection
    quiet_since: float  # when its last response ended, or it was opened, in seconds of ``time.monotonic``
    is_waited_for: bool  # whether the server waits for the client to send or to read
    is_hung_up: bool

    def hang_up(self) -> None:
        """Close the connection."""


class OpenConnections[C: Client]:
    """The connections of a process, which may have at most ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Some connections are accepted before this object sees the first of them.
        self._bound = most - max(most // 8, 32)
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
            self._close(max(1, self._most // 32))

    def discard(self, client: C) -> None:
        """Remove a connection that was closed."""
        if client in self._clients:
            self._clients.discard(client)
            self._closing -= client.is_hung_up

    def _close(self, count: int) -> None:
        for client in choose([each for each in self._clients if not each.is_hung_up], count):
            client.hang_up()
            self._closing += 1


def choose[C: Client](clients: list[C], count: int) -> list[C]:
    """Return the ``count`` connections to close: those that have been quiet for longest, of the address with the most.

    A connection on which a credential was verified is never among them, unless its caller has ``KEPT_PER_CALLER``
    newer ones. Neither is one whose client waits for the server.
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
    return (chosen + surplus)[:count]


def note_caller(environ: Mapping[str, Any], caller: str) -> None:
    """Note on the request's connection that a credential of ``caller`` was verified."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.caller = caller


def note_address(environ: Mapping[str, Any], address: str) -> None:
    """Note the address for which the connection counts, if the caller's proxies name another than the peer's."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.address = address


def address_of(environ: Mapping[str, Any]) -> str:
    """Return the address for which the request's connection counts."""
    connection = environ.get("gunicorn.socket")
    return str(environ.get("REMOTE_ADDR", "")) if connection is None else str(connection.address)
