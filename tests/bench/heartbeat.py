"""The benchmark of heartbeats per second: this API compared with plain DRF, on one server, in alternating rounds."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

AGENTS, CONNECTIONS, SECONDS, ROUNDS = 500, 16, 4.0, 3
BODY = (
    b'{"status":"healthy","agent_version":"0.1.0","uptime_s":12.5,"active":null,'
    b'"resources":{"cpu_percent":3.5,"memory_bytes":104857600,"disk_free_bytes":53687091200}}'
)
STOCK_BODY = b'{"status":"healthy","agent_version":"0.1.0","report":{"cpu_percent":3.5,"memory_bytes":104857600}}'


def _agents() -> list[tuple[str, str]]:
    """Enroll agents and return their ids and keys."""
    from tests.worlds import World

    world = World("bench")
    enrolled = (world.agent(world.dev, name=f"agent-{number}") for number in range(AGENTS))
    return [(str(agent.pk), api.token or "") for agent, api in enrolled]


@contextlib.contextmanager
def _server(port: int) -> Iterator[None]:
    argv = [
        sys.executable, "-m", "gunicorn", "byteor_cloud.wsgi", "--bind", f"127.0.0.1:{port}",
        "--config", "byteor_cloud/gunicorn.py", "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(argv, env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.bench.settings"})
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send one request, read the whole response (chunked or with a length), and return its status."""
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lower = head.lower()
    if b"content-length:" in lower:
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
    else:
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
    return head.split(b" ", 2)[1]


def _load(port: int, prefix: str, body: bytes, agents: list[tuple[str, str]]) -> tuple[float, float]:
    """Return the requests per second and the median latency in ms over all connections."""
    latencies: list[float] = []
    stop = time.monotonic() + SECONDS

    def client(mine: list[tuple[str, str]]) -> None:
        requests = [
            f"POST {prefix}/agents/{pk}/heartbeat HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
            for pk, key in mine
        ]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            number = 0
            while time.monotonic() < stop:
                began = time.perf_counter()
                status = _exchange(connection, requests[number % len(requests)])
                if status != b"200":
                    raise RuntimeError(f"the server answered {status!r}")
                latencies.append(time.perf_counter() - began)
                number += 1

    threads = [threading.Thread(target=client, args=(agents[n::CONNECTIONS],)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(latencies) / SECONDS, statistics.median(latencies) * 1000


def run(folder: Path, port: int) -> None:
    """Print the rate of each round, and the ratio of the medians."""
    agents = _agents()
    variants = {"plain DRF": ("/stock", STOCK_BODY), "this API": ("/api/v1", BODY)}
    rates: dict[str, list[float]] = {name: [] for name in variants}
    with _server(port):
        for prefix, body in variants.values():
            _load(port, prefix, body, agents)  # warm up
        for round_number in range(1, ROUNDS + 1):
            for name, (prefix, body) in variants.items():
                rate, p50 = _load(port, prefix, body, agents)
                rates[name].append(rate)
                print(f"  heartbeat  round {round_number}  {name:<10} {rate:7.0f}/s  p50 {p50:5.1f} ms", flush=True)
    ratio = statistics.median(rates["this API"]) / statistics.median(rates["plain DRF"])
    print(f"  heartbeat  this API / plain DRF = {ratio:.2f}  (goal: at least 2)")
