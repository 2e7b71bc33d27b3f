"""Tests of heartbeats under load while the database is down or loses all connections, or API processes are killed.

Each heartbeat with a 200 response is stored. All others receive a clear 503, or a broken connection if the API
process was killed. The service recovers without intervention.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

import psycopg
import pytest

from byteor_cloud.database.embedded import EmbeddedPostgres
from tests.crash.conftest import Workspace
from tests.patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
AGENTS = 8


class BeatingAgent:
    """An agent that sends heartbeats over a keep-alive connection and numbers them in ``agent_version``."""

    def __init__(self, workspace: Workspace, token: str, name: str) -> None:
        enrolled = workspace.request("POST", f"{workspace.environment}/agents", token, json={"name": name}).json()
        self.id, self._key = enrolled["agent_id"], enrolled["api_key"]
        self._address = urlsplit(workspace.installation.base).netloc
        self.sent = self.acknowledged = self.refused = self.broken = 0
        self.wrong: list[str] = []  # responses that are neither 200 nor a clear 503

    def run(self, over: threading.Event) -> None:
        """Send heartbeats until ``over`` is set."""
        with closing(HTTPConnection(self._address, timeout=PATIENCE_S)) as connection:
            while not over.is_set():
                self.sent += 1
                try:
                    self._beat(connection)
                except (ConnectionError, HTTPException):
                    self.broken += 1
                    connection.close()

    def _beat(self, connection: HTTPConnection) -> None:
        beat = {"status": "healthy", "agent_version": str(self.sent)}
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection.request("POST", f"/api/v1/agents/{self.id}/heartbeat", json.dumps(beat), headers)
        response = connection.getresponse()
        body = response.read()
        if response.status == 200:
            self.acknowledged = self.sent
        elif _is_clear(response, body):
            self.refused += 1
            time.sleep(0.02)
        else:
            self.wrong.append(f"{response.status} {body[:300]!r}")


def _is_clear(response: HTTPResponse, body: bytes) -> bool:
    """Return whether the response is a 503 problem with ``Retry-After`` and a detail."""
    if response.status != 503 or response.headers["Content-Type"] != "application/problem+json":
        return False
    problem = json.loads(body)
    retry_after = int(response.headers["Retry-After"] or 0)
    return problem.get("status") == 503 and bool(problem.get("detail")) and retry_after > 0


class Load:
    """Agents that send heartbeats while the block runs."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        token = workspace.post(f"{workspace.environment}/enrollment-tokens", {"max_uses": AGENTS})["token"]
        self.agents = [
            BeatingAgent(workspace, token, f"beating-{number}-{os.urandom(4).hex()}") for number in range(AGENTS)
        ]
        self._over = threading.Event()
        self._threads = [threading.Thread(target=agent.run, args=(self._over,)) for agent in self.agents]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_progress()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_progress(self) -> None:
        """Wait until the number of each agent's last acknowledged heartbeat has grown by at least 3."""
        self._wait_for_growth(lambda agent: agent.acknowledged, by=3)

    def wait_for_refusals(self) -> None:
        """Wait until each agent has received another 503."""
        self._wait_for_growth(lambda agent: agent.refused, by=1)

    def _wait_for_growth(self, number: Callable[[BeatingAgent], int], *, by: int) -> None:
        before = [number(agent) for agent in self.agents]
        wait_until(
            lambda: all(number(agent) >= then + by for agent, then in zip(self.agents, before, strict=True)),
            every_s=0.01,
        )

    def check(self) -> None:
        """Assert that each agent's last acknowledged or a later heartbeat is stored, and that no response was wrong."""
        assert [line for agent in self.agents for line in agent.wrong] == []
        for agent in self.agents:
            shown = self._workspace.get(f"{self._workspace.environment}/agents/{agent.id}")
            assert agent.acknowledged <= int(shown["agent_version"]) <= agent.sent

    @property
    def broken(self) -> int:
        """The number of heartbeats without a response."""
        return sum(agent.broken for agent in self.agents)


@contextmanager
def no_restart(workspace: Workspace) -> Iterator[None]:
    """Keep the server from restarting its database while the block runs."""
    with (workspace.installation.data_dir / "postgres" / "start.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def load(workspace: Workspace) -> Load:
    return Load(workspace)


def test_heartbeats_recover_after_database_restart(workspace: Workspace, load: Load) -> None:
    with load:
        with no_restart(workspace):
            os.kill(workspace.installation.database_pid(), signal.SIGINT)
            load.wait_for_refusals()
        load.wait_for_progress()

    load.check()
    assert load.broken == 0


def test_heartbeats_recover_after_database_connections_are_cut(workspace: Workspace, load: Load) -> None:
    embedded = EmbeddedPostgres(workspace.installation.data_dir)
    try:
        with load, psycopg.connect(embedded.acquire(), autocommit=True) as session:
            for _ in range(5):
                session.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                load.wait_for_progress()
    finally:
        embedded.release()

    load.check()
    assert load.broken == 0


def test_heartbeats_recover_after_api_processes_are_killed(workspace: Workspace, load: Load) -> None:
    # Kill all API processes, one after the other, because some may have no connection of an agent.
    first = workspace.api_processes()
    with load:
        for victim in first:
            others = set(workspace.api_processes()) - {victim}
            os.kill(victim, signal.SIGKILL)
            load.wait_for_progress()
            wait_until(lambda others=others: len(set(workspace.api_processes()) - others) == 1)  # type: ignore[misc]  # mypy cannot infer the lambda

    load.check()
    assert load.broken > 0
    assert not set(first) & set(workspace.api_processes())
