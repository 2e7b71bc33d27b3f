"""Tests of the connection pool with a small server in a thread."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from byteor_cloud.simulator import pool as pool_module
from byteor_cloud.simulator.pool import Exchange, Pool
from tests.patience import PATIENCE_S

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """Run ``serve`` in a thread for each connection."""
    over, threads = Event(), list[Thread]()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                thread = Thread(target=serve, args=(connection,))
                thread.start()
                threads.append(thread)

        accepting = Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()
        finally:
            over.set()
            accepting.join()
            for thread in threads:
                thread.join()


def keep_responding(connection: socket.socket) -> None:
    with connection:
        data = b""
        while more := connection.recv(65536):
            data += more
            if data.endswith(b"\r\n\r\n"):
                connection.sendall(RESPONSE)
                data = b""


def finish(pool: Pool, count: int) -> list[Exchange]:
    done: list[Exchange] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(done) < count and time.monotonic() < deadline:
        done += pool.poll(0.1)
    pool.close()
    return done


def submit(pool: Pool, count: int, slow_send_s: float = 0.0) -> None:
    for owner in range(count):
        pool.submit(Exchange(owner, REQUEST, time.monotonic(), slow_send_s))


def test_requests_share_connections_and_receive_responses() -> None:
    with server(keep_responding) as address:
        pool = Pool(address, 3)
        submit(pool, 20)
        assert (pool.in_flight, pool.waiting) == (20, 17)
        done = finish(pool, 20)

    assert sorted(exchange.owner for exchange in done) == list(range(20))
    assert {(exchange.status, exchange.failure) for exchange in done} == {(200, "")}
    assert all(exchange.due <= exchange.sent_at <= exchange.done_at for exchange in done)
    assert pool.opened == pool.most_open == 3


def test_sending_of_slow_request_is_spread_over_requested_time() -> None:
    with server(keep_responding) as address:
        pool = Pool(address, 1)
        submit(pool, 1, slow_send_s=0.4)
        (exchange,) = finish(pool, 1)

    assert exchange.status == 200
    assert exchange.done_at - exchange.sent_at > 0.3


def test_reason_for_missing_response_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def close_immediately(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.close()

    def close_midway(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(RESPONSE[:-1])
        connection.close()

    def send_nonsense(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"SSH-2.0\r\n\r\n")
        connection.close()

    def never_respond(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass
        connection.close()

    monkeypatch.setattr(pool_module, "_RESPONSE_TIMEOUT_S", 0.5)
    reasons = []
    for serve in (close_immediately, close_midway, send_nonsense, never_respond):
        with server(serve) as address:
            pool = Pool(address, 1)
            submit(pool, 1)
            reasons.append(finish(pool, 1)[0].failure)
    pool = Pool(address, 1)  # no server is listening at this address
    submit(pool, 1)
    reasons.append(finish(pool, 1)[0].failure)

    assert reasons == [
        "connection closed without a response",
        "connection closed within a response",
        "not an HTTP/1.1 response",
        "no response in time",
        "connection refused",
    ]


def test_connection_closed_by_server_is_replaced() -> None:
    def respond_once(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(RESPONSE)

    with server(respond_once) as address:
        pool = Pool(address, 1)
        for _ in range(3):
            submit(pool, 1)
            done: list[Exchange] = []
            while not done:
                done = pool.poll(0.1)
            assert done[0].status == 200
            assert pool.poll(0.2) == []  # the pool notices the closed connection
        pool.close()

    assert (pool.opened, pool.most_open) == (3, 1)
