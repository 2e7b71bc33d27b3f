"""A server with one API process and callers who use all resources that they can get: other callers are still served."""

from __future__ import annotations

import json
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.bench.traffic import Style, Traffic, request
from tests.patience import PATIENCE_S, wait_until
from tests.slow_clients import PLAN, Target
from tests.system.conftest import ROOT, Installation

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of another process")
MAX_FILES = 1_024
SLOTS = 4
HEARTBEAT = {"boot_id": "b", "status": "healthy", "agent_version": "1"}


@pytest.fixture(scope="module")
def server() -> Iterator[Installation]:
    made = Installation()
    made.max_files = MAX_FILES
    made.serve(API_PROCESSES="1", API_THREADS=str(SLOTS), RATE_LIMIT="off", DEPLOYMENT_MODE="api")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def busy(server: Installation) -> Target:
    """Return the tenant of the greedy caller."""
    return tenant(server, "busy")


@pytest.fixture(scope="module")
def quiet(server: Installation) -> Target:
    """Return the tenant of another caller."""
    return tenant(server, "quiet")


def tenant(server: Installation, name: str) -> Target:
    """Create an organization with an environment and an agent."""
    made = server.bootstrap(name)
    organization = f"/api/v1/orgs/{made['org_id']}"
    target = Target(server.base, made["token"], organization, "")
    project = target.call("POST", f"{organization}/projects", {"name": "trading"})["id"]
    environments = f"{organization}/projects/{project}/environments"
    environment = target.call("POST", environments, {"name": "dev", "posture": "dev"})["id"]
    target.environment = f"{environments}/{environment}"
    token = target.call("POST", f"{target.environment}/enrollment-tokens", {})["token"]
    enrolled = target.call("POST", f"{target.environment}/agents", {"name": "edge-1"}, token)
    target.agent_id, target.agent_key = enrolled["agent_id"], enrolled["api_key"]
    return target


def use(target: Target) -> None:
    """Send a probe, a heartbeat and a list request, each on a new connection."""
    assert requests.get(f"{target.base}/healthz", timeout=PATIENCE_S).status_code == 200
    target.call("POST", f"/api/v1/agents/{target.agent_id}/heartbeat", HEARTBEAT, target.agent_key)
    target.call("GET", f"{target.environment}/drafts")


def connected(server: Installation) -> list[str]:
    """Return the remote addresses, as in /proc/net/tcp, of the server's connections with unread bytes."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = f"0100007F:{server.port:04X}"
    return [line[2] for line in lines if line[1] == own and line[3] == "01" and not line[4].endswith(":00000000")]


def connect(server: Installation) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


@contextmanager
def busy_connections(server: Installation, request: bytes) -> Iterator[None]:
    """Run a process whose connections always have more requests waiting to be read."""
    file = server.data_dir / "traffic.json"
    Traffic(Style.PIPELINED, server.port, seconds=2 * PATIENCE_S, connections=6, requests=[request]).save(file)
    command = [sys.executable, "-m", "tests.bench.traffic", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        try:
            wait_until(lambda: len(connected(server)) >= 6)
            yield
            assert sender.poll() is None  # the connections stayed busy until the block ended
        finally:
            sender.communicate()


@pytest.mark.parametrize("kind", ["probes", "polls", "lists"])
def test_busy_connections_do_not_starve_other_callers(
    server: Installation, busy: Target, quiet: Target, kind: str
) -> None:
    path, token = {
        "probes": ("/healthz", ""),
        "polls": (f"/api/v1/agents/{busy.agent_id}/deployment", busy.agent_key),
        "lists": (f"{busy.environment}/drafts", busy.token),
    }[kind]
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    with busy_connections(server, request("GET", path, b"", **headers)):
        for _ in range(5):
            use(quiet)


def test_idle_connections_of_one_address_do_not_block_other_callers(server: Installation, quiet: Target) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4_096)), hard))
    key = f"Authorization: Bearer {quiet.agent_key}\r\n"
    poll = f"GET /api/v1/agents/{quiet.agent_id}/deployment?wait_s=30 HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}\r\n"
    verified = requests.Session()
    verified.headers["Authorization"] = f"Bearer {quiet.token}"
    assert verified.get(quiet.base + quiet.environment, timeout=PATIENCE_S).ok
    flood: list[socket.socket] = []
    with closing(connect(server)) as waiting:
        waiting.sendall(poll.encode())
        try:
            while len(flood) < 2_000:
                flood.append(connect(server))
                if len(flood) % 2:
                    flood[-1].sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")

            use(quiet)

            ended = [each for each in flood if is_ended(each)]
            assert len(flood) - len(ended) < MAX_FILES
            # None of the newest 100 connections was closed.
            assert not {id(each) for each in ended} & {id(each) for each in flood[-100:]}
            assert not is_ended(waiting)
            before = server.output().count("/environments")
            # The session that was verified before the flood still works.
            assert verified.get(quiet.base + quiet.environment, timeout=PATIENCE_S).ok
            assert server.output().count("/environments") > before
        finally:
            for each in flood:
                each.close()


def is_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextmanager
def locked_rows(database: psycopg.Connection[Any], ids: list[str]) -> Iterator[None]:
    """Lock these drafts during the block. Requests that change them wait for the lock and occupy their slots."""
    with database.transaction():
        database.execute("SELECT FROM pipelines_draft WHERE id = ANY(%s::uuid[]) FOR UPDATE", [ids])
        yield


def send(server: Installation, method: str, path: str, token: str, name: str, body: str = "") -> socket.socket:
    """Send a request with the request id ``name`` and do not wait for the response."""
    connection = connect(server)
    connection.sendall(
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nX-Request-ID: {name}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return connection


def test_slow_requests_leave_slots_to_other_organizations(server: Installation, busy: Target, quiet: Target) -> None:
    draft = busy.call("POST", f"{busy.environment}/drafts", {"name": "locked", "plan": PLAN})["id"]
    quiet.call("GET", f"{quiet.environment}/drafts")  # lets the server verify this token before the slots are in use
    postgres = EmbeddedPostgres(server.data_dir)
    connections: list[socket.socket] = []

    def are_waiting() -> bool:
        found = database.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
        return found is not None and found[0] >= SLOTS // 2

    try:
        with (
            psycopg.connect(url := postgres.acquire(), autocommit=True) as database,
            psycopg.connect(url) as locking,
            locked_rows(locking, [draft]),
        ):
            for number in range(32):
                body = json.dumps({"name": f"renamed {number}"})
                path = f"{busy.environment}/drafts/{draft}"
                connections.append(send(server, "PUT", path, busy.token, f"many-{number:04}", body))
            wait_until(are_waiting)
            for _ in range(3):  # so that the server has read all earlier requests
                assert server.get("/healthz").status_code == 200
            connections.append(send(server, "GET", f"{quiet.environment}/drafts", quiet.token, "few-0000"))
            wait_until(lambda: "few-0000" in finished(server))
            assert finished(server) == ["few-0000"]  # no other request has finished
        wait_until(lambda: len(finished(server)) == 33)
    finally:
        for each in connections:
            each.close()
        postgres.release()


def finished(server: Installation) -> list[str]:
    """Return the request ids that start with ``many`` or ``few``, in the order in which the requests finished."""
    return re.findall(r"request_id=((?:many|few)-[0-9]{4}) ", server.output())
