"""The benchmark of enrollments per second with one multi-use token, on one server with two processes."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
import uuid
from pathlib import Path

from tests.bench.heartbeat import _exchange, _server

CONNECTIONS, SECONDS, ROUNDS, USES = (8, 64), 6.0, 3, 100_000


def _load(port: int, path: str, token: str, connections: int) -> tuple[float, float, float]:
    """Return the enrollments per second, and the median and 99th percentile of the latency in ms."""
    latencies: list[float] = []
    stop = time.monotonic() + SECONDS

    def client() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            while time.monotonic() < stop:
                body = json.dumps({"name": f"edge-{uuid.uuid4()}", "hostname": "edge.example"}).encode()
                # As the reference agent does, so that a lost answer can be repeated.
                head = (
                    f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
                    f"Idempotency-Key: {uuid.uuid4()}\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                began = time.perf_counter()
                status = _exchange(connection, head.encode() + body)
                if status != b"201":
                    raise RuntimeError(f"the server answered {status!r}")
                latencies.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    centiles = statistics.quantiles(latencies, n=100)
    return len(latencies) / SECONDS, centiles[49] * 1000, centiles[98] * 1000


def run(folder: Path, port: int) -> None:
    """Print the rate of each round. Raise RuntimeError unless uses, agents and audit events agree afterwards."""
    from apps.fleet.models import Agent, EnrollmentToken
    from apps.tenancy.models import AuditEvent
    from tests.worlds import World

    world = World("bench")
    token, path = world.enrollment_token(max_uses=USES, expires_in_s=3600), world.path(rest="/agents")
    with _server(port):
        _load(port, path, token, CONNECTIONS[0])  # warm up
        for connections in CONNECTIONS:
            rates = []
            for number in range(1, ROUNDS + 1):
                rate, p50, p99 = _load(port, path, token, connections)
                rates.append(rate)
                print(
                    f"  enrollment  round {number}  {connections:3} at a time  {rate:6.0f}/s"
                    f"  p50 {p50:5.0f} ms  p99 {p99:5.0f} ms",
                    flush=True,
                )
            print(f"  enrollment  {connections} at a time: {statistics.median(rates):.0f}/s  (goal: at least 300)")
    events = AuditEvent.objects.filter(action="agent.enroll").count()
    found = {EnrollmentToken.objects.get().uses, Agent.objects.count(), events}
    if len(found) != 1:
        raise RuntimeError(f"uses, agents and events differ: {found}")
