"""Tests of clients' connections: their minimum rate, turns of other greenlets, and hang-ups, with a simulated clock."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from byteor_cloud.server import front_door
from byteor_cloud.server.front_door import PATIENCE_S, PacedSocket


class Client:
    """A fake socket with a timeout. Its client sends or reads up to ``size`` bytes in ``seconds``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, size: int, seconds: float) -> None:
        self.now, self.size, self.seconds = 1000.0, size, seconds
        self.moved = 0
        self.timeout = 0.0
        self.is_open = True
        monkeypatch.setattr(front_door, "time", SimpleNamespace(monotonic=lambda: self.now))

    def setsockopt(self, *args: Any) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def _wait(self, seconds: float) -> None:
        self.now += min(seconds, self.timeout)
        if seconds > self.timeout:
            raise TimeoutError("timed out")

    def recv(self, size: int) -> bytes:
        if not self.is_open:
            raise OSError(errno.EBADF, "closed")
        self._wait(self.seconds)
        moved = min(size, self.size)
        self.moved += moved
        return b"x" * moved

    def sendall(self, data: bytes) -> None:
        self._wait(self.seconds * len(data) / self.size)
        self.moved += len(data)

    def shutdown(self, how: int) -> None:
        self.is_open = False


class Loop:
    """A fake of gevent's sleep that counts how often other greenlets could run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns = 0
        monkeypatch.setattr(front_door, "gevent", SimpleNamespace(sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.turns += 1


def receive_all(paced: PacedSocket, count: int) -> None:
    received = 0
    while received < count:
        received += len(paced.recv(8192))


def test_client_below_minimum_rate_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, size=1, seconds=1.0)
    paced = PacedSocket(client, keepalive_s=75)

    with pytest.raises(TimeoutError) as raised:
        receive_all(paced, 10_000)

    assert raised.value.errno == errno.ECONNRESET  # gunicorn logs no traceback for this error
    assert client.now - 1000 <= PATIENCE_S + 2


def test_silent_client_is_disconnected_after_keepalive_time(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, size=1, seconds=10_000)

    with pytest.raises(TimeoutError):
        PacedSocket(client, keepalive_s=75).recv(8192)

    assert client.now == 1075


def test_client_above_minimum_rate_may_take_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, size=1100, seconds=1.0)
    paced = PacedSocket(client, keepalive_s=75)

    receive_all(paced, 20_000_000)

    assert client.now - 1000 > 4 * 3600


def test_time_used_by_server_does_not_count_against_client(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, size=10, seconds=1.0)
    paced = PacedSocket(client, keepalive_s=75)
    for _ in range(10):
        paced.recv(8192)
        client.now += 100

    paced.recv(8192)

    assert client.moved == 110


def test_each_request_has_its_own_time_budget_that_excludes_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, size=10, seconds=1.0)
    paced = PacedSocket(client, keepalive_s=75)
    for _ in range(5):
        receive_all(paced, 150)
        paced.sendall(b"x" * 10)
        assert not paced.is_idle
        client.seconds = 70
        assert len(paced.recv(8192)) == 10
        client.seconds = 1.0

    assert client.moved == 5 * 170


@pytest.mark.parametrize(("size", "is_too_slow"), [(2, True), (1100, False)])
def test_slow_reader_is_disconnected_only_below_minimum_rate(
    monkeypatch: pytest.MonkeyPatch, size: int, is_too_slow: bool
) -> None:
    client = Client(monkeypatch, size=size, seconds=1.0)
    paced = PacedSocket(client, keepalive_s=75)

    if is_too_slow:
        with pytest.raises(TimeoutError):
            paced.sendall(b"x" * 10_000_000)
        assert client.now - 1000 <= PATIENCE_S + 1
    else:
        # Each piece that is sent extends the budget for the next one.
        for _ in range(1000):
            paced.sendall(b"x" * 10_000)
        assert client.moved == 10_000_000


def test_other_greenlets_run_while_client_sends_without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, client = Loop(monkeypatch), Client(monkeypatch, size=1 << 20, seconds=0.0)

    receive_all(PacedSocket(client, keepalive_s=75), 20_000_000)

    assert loop.turns >= 19  # at least one turn per MiB


def test_other_greenlets_run_while_client_sends_single_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, client = Loop(monkeypatch), Client(monkeypatch, size=1, seconds=0.0)

    receive_all(PacedSocket(client, keepalive_s=75), 6_400)

    assert loop.turns >= 100


def test_other_greenlets_run_while_client_reads_without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, paced = Loop(monkeypatch), PacedSocket(Client(monkeypatch, size=1 << 30, seconds=0.0), keepalive_s=75)

    for _ in range(20):
        paced.sendall(b"x" * (1 << 20))

    assert loop.turns >= 20


def test_recv_returns_no_bytes_after_hang_up(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, size=10, seconds=1.0)
    paced = PacedSocket(client, keepalive_s=75)

    paced.hang_up()

    assert paced.recv(8192) == b""


def test_connection_may_be_hung_up_only_before_request_and_after_response(monkeypatch: pytest.MonkeyPatch) -> None:
    paced = PacedSocket(Client(monkeypatch, size=100, seconds=0.1), keepalive_s=75)
    assert paced.may_be_hung_up  # the client has sent nothing
    paced.recv(10)
    assert not paced.may_be_hung_up  # the client is sending its first request
    paced.is_handled = True
    paced.sendall(b"x")
    assert not paced.may_be_hung_up
    paced.is_handled = False
    paced.recv(10)
    assert paced.may_be_hung_up  # the client sends the rest of a body after the response
