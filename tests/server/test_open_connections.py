"""Tests of the choice of connections to close when a process is near its limit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from byteor_cloud.server.open_connections import KEPT_PER_CALLER, OpenConnections, choose


@dataclass(eq=False)
class Client:
    address: str
    quiet_since: float
    caller: str | None = None
    is_waited_for: bool = True
    is_hung_up: bool = field(default=False, init=False)

    def hang_up(self) -> None:
        self.is_hung_up = True


def clients(address: str, times: Sequence[float], **options: str) -> list[Client]:
    made = [Client(address, float(time), **options) for time in times]  # type: ignore[arg-type]  # the only option is a caller, which is a string
    random.Random(1).shuffle(made)
    return made


def chosen(given: list[Client], count: int) -> list[tuple[str, float]]:
    return [(client.address, client.quiet_since) for client in choose(given, count)]


def test_longest_idle_connections_of_busiest_address_are_closed_first() -> None:
    given = clients("a", range(10, 20)) + clients("b", range(3)) + clients("c", range(5))

    assert chosen(given, 4) == [("a", 10), ("a", 11), ("a", 12), ("a", 13)]


def test_equally_busy_addresses_lose_same_number_of_connections() -> None:
    given = clients("a", range(10)) + clients("b", range(10)) + clients("c", range(2))

    addresses = [address for address, _ in chosen(given, 12)]

    assert (addresses.count("a"), addresses.count("b"), addresses.count("c")) == (6, 6, 0)


def test_served_connections_are_kept_and_limited_number_per_verified_caller() -> None:
    verified = clients("a", range(KEPT_PER_CALLER), caller="agent")
    served = clients("a", range(50))
    for client in served:
        client.is_waited_for = False

    assert chosen([*verified, *served, Client("b", 100)], 200) == [("b", 100)]


def test_caller_keeps_only_its_most_recently_used_connections() -> None:
    own = clients("a", range(KEPT_PER_CALLER + 3), caller="agent")
    others = [Client("a", 0, caller=f"agent {number}") for number in range(500)]

    assert chosen(own + others, 10) == [("a", 0), ("a", 1), ("a", 2)]
    assert chosen(own + others, 2) == [("a", 0), ("a", 1)]


def test_flood_of_connections_stays_within_limit() -> None:
    opened: OpenConnections[Client] = OpenConnections(256)
    kept = [Client("proxy", 0, caller=f"agent {number}") for number in range(100)]
    most = 0
    for client in kept:
        opened.add(client)
    for number in range(2_000):
        opened.add(Client("flood", 1 + number))
        if number % 32 == 31:  # connections are accepted 32 at a time, and closed only between these batches
            most = max(most, len(opened))
            for client in opened:
                if client.is_hung_up:
                    opened.discard(client)

    assert most <= 256
    assert not any(client.is_hung_up for client in kept)
    # The newest connections of the flood stay open as far as there is room.
    left = sorted(client.quiet_since for client in opened if client.address == "flood")
    assert left == list(range(2_001 - len(left), 2_001))
