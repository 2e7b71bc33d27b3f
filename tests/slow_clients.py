"""Slow clients that keep connections open, and normal clients whose latency is measured in the meantime.

Used by system tests and by ``make bench ARGS=slow-clients``.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.patience import PATIENCE_S, wait_until

KINDS = (
    "idle", "slow headers", "slow anonymous body", "slow body", "slow upload",
    "slow reader of a bundle", "slow reader of an export",
)  # fmt: skip
PLAN = {
    "plan_v": 1,
    "name": "quotes",
    "target": "single_ring",
    "single_ring": {"ingress": "i", "egress": "o", "stages": [{"id": "decode", "op": "identity"}]},
}
TICK_S = 1.0


@dataclass
class Target:
    """A server and an organization. ``prepare`` adds an agent, an offer of a large bundle, and a long ledger."""

    base: str
    token: str
    organization: str
    environment: str
    agent_id: str = ""
    agent_key: str = ""
    bundle_hash: str = ""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None) -> Any:
        """Send a request and return the JSON of the response. Raises AssertionError if the response is an error."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        answer = requests.request(method, self.base + path, json=body, headers=headers, timeout=PATIENCE_S)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()


def prepare(base: str, bootstrapped: Mapping[str, str]) -> Target:
    """Fill the organization that ``bootstrap`` created, through the API. Return it as a target."""
    organization = f"/api/v1/orgs/{bootstrapped['org_id']}"
    target = Target(base, bootstrapped["token"], organization, "")
    project = target.call("POST", f"{organization}/projects", {"name": "trading"})["id"]
    made = target.call("POST", f"{organization}/projects/{project}/environments", {"name": "dev", "posture": "dev"})
    target.environment = environment = f"{organization}/projects/{project}/environments/{made['id']}"
    token = target.call("POST", f"{environment}/enrollment-tokens", {})["token"]
    enrolled = target.call("POST", f"{environment}/agents", {"name": "edge-1"}, token)
    target.agent_id, target.agent_key = enrolled["agent_id"], enrolled["api_key"]
    draft = target.call("POST", f"{environment}/drafts", {"name": "quotes", "plan": PLAN})["id"]
    version = target.call("POST", f"{environment}/drafts/{draft}/version", {})["id"]
    large = {f"LARGE_{number}": "x" * 30_000 for number in range(30)}
    bundle = target.call("POST", f"{environment}/config-bundles", {"name": "b", "version_id": version, "env": large})
    wanted = {"config_bundle_id": bundle["id"], "target": {"all": True}, "strategy": {"kind": "all_at_once"}}
    target.call("POST", f"{environment}/deployments", wanted)
    for number in range(150):  # the audit events make the ledger's export large
        labels = {f"label-{each}": f"{number:063d}" for each in range(60)}
        target.call("PATCH", f"{environment}/agents/{target.agent_id}", {"labels": labels})
    desired = f"/api/v1/agents/{target.agent_id}/deployment"

    def is_offered() -> bool:
        offer = target.call("GET", desired, token=target.agent_key)["desired"]
        target.bundle_hash = offer["bundle_hash"] if offer else ""
        return bool(offer)

    wait_until(is_offered, every_s=0.1)
    return target


@dataclass
class Crowd:
    """The open connections, and the number of connections that the server has closed, by kind."""

    sockets: dict[str, list[socket.socket]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    def tick(self) -> None:
        """Send or read one byte on each connection, except idle ones. Count and drop those that the server closed."""
        for kind, sockets in self.sockets.items():
            for each in list(sockets):
                if self._is_ended(kind, each):
                    each.close()
                    sockets.remove(each)
                    self.ended[kind] = self.ended.get(kind, 0) + 1

    @staticmethod
    def _is_ended(kind: str, each: socket.socket) -> bool:
        try:
            if kind == "idle":
                return each.recv(1, socket.MSG_PEEK) == b""
            if "reader" in kind:
                return each.recv(1) == b""
            each.send(b"a")
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False


def _opening(target: Target, kind: str) -> bytes:
    """Return the bytes that a connection of this kind sends first."""
    boundary = "xx"
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="kind"\r\n\r\ntelemetry\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    )
    length, body = 1_000_000, ""
    own, kept = f"/api/v1/agents/{target.agent_id}", f"{target.environment}/drafts"
    method, path, token, media = "GET", "/healthz", "", "application/json"
    match kind:
        case "idle":
            return b""
        case "slow headers":
            return b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
        case "slow anonymous body":
            method, path = "POST", kept
        case "slow body":
            method, path, token, body = "POST", kept, target.token, '{"name": "'
        case "slow upload":
            method, path, token, body = "POST", f"{own}/artifacts", target.agent_key, form
            media = f"multipart/form-data; boundary={boundary}"
        case "slow reader of a bundle":
            path, token = f"{own}/deployment/bundle?hash={target.bundle_hash}", target.agent_key
        case "slow reader of an export":
            path, token = f"{target.organization}/audit-events/export", target.token
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    if method == "POST":
        head += f"Content-Type: {media}\r\nContent-Length: {length}\r\n"
    return f"{head}\r\n{body}".encode()


@contextmanager
def crowd(target: Target, count: int, kinds: tuple[str, ...] = KINDS) -> Iterator[Crowd]:
    """Open ``count`` connections of each kind. Until the block ends, all but idle ones send or read 1 byte/s."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count * len(kinds) + 500)), hard))
    address = urlsplit(target.base)
    made = Crowd({kind: [] for kind in kinds})
    over = threading.Event()

    def keep_ticking() -> None:
        while not over.wait(TICK_S):
            made.tick()

    ticking = threading.Thread(target=keep_ticking)
    try:
        for kind in kinds:
            opening = _opening(target, kind)
            for _ in range(count):
                each = socket.socket()
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                each.connect((address.hostname, address.port))
                each.setblocking(False)
                with suppress(BlockingIOError):
                    each.send(opening)
                made.sockets[kind].append(each)
        ticking.start()
        yield made
    finally:
        over.set()
        if ticking.is_alive():
            ticking.join()
        for sockets in made.sockets.values():
            for each in sockets:
                each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass
class Measured:
    """The durations of heartbeats and list requests in milliseconds, and the errors."""

    heartbeats: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def medians(self) -> tuple[float, float]:
        """The median durations of a heartbeat and of a list request in milliseconds."""
        return statistics.median(self.heartbeats), statistics.median(self.lists)


def measure(target: Target, count: int) -> Measured:
    """Send ``count`` heartbeats and ``count`` list requests alternately."""
    session, measured = requests.Session(), Measured()
    session.trust_env = False
    beat = json.dumps({"status": "healthy", "agent_version": "1", "active": None}).encode()
    calls = (
        (measured.heartbeats, "POST", f"/api/v1/agents/{target.agent_id}/heartbeat", target.agent_key, beat),
        (measured.lists, "GET", f"{target.environment}/drafts", target.token, None),
    )
    for _ in range(count):
        for taken, method, path, token, body in calls:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            began = time.perf_counter()
            try:
                answer = session.request(method, target.base + path, data=body, headers=headers, timeout=PATIENCE_S)
            except requests.RequestException as error:
                measured.failures.append(f"{method} {path}: {error!r}")
                continue
            if answer.status_code != 200:
                measured.failures.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            taken.append((time.perf_counter() - began) * 1000)
    return measured
