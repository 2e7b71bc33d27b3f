"""Many agents in one process, which send heartbeats and handle their offers through the public API."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from tests.crash.conftest import Workspace
from tests.patience import PATIENCE_S

THREADS = 4
EVERY_S = 0.5  # seconds between rounds of heartbeats; shorter pauses would delay the reports


@dataclass
class SimulatedAgent:
    """A simulated agent. ``running`` is the bundle that its next heartbeat reports."""

    id: str
    name: str
    key: str
    running: dict[str, str] | None = None
    handled: str | None = None  # ``offered_at`` of the last offer that the agent handled


class SimulatedFleet:
    """``count`` agents, sorted by id, which send heartbeats regularly while the block runs."""

    def __init__(self, workspace: Workspace, count: int) -> None:
        self.workspace = workspace
        self.address = urlsplit(workspace.installation.base).netloc
        token = workspace.post(f"{workspace.environment}/enrollment-tokens", {"max_uses": count})["token"]

        def enroll(number: int) -> SimulatedAgent:
            body = {"name": f"agent-{number:03}"}
            made = workspace.request("POST", f"{workspace.environment}/agents", token, json=body).json()
            return SimulatedAgent(made["agent_id"], body["name"], made["api_key"])

        with ThreadPoolExecutor(THREADS) as pool:
            # Sorted by id, because a rollout assigns agents to waves in this order.
            self.agents = sorted(pool.map(enroll, range(count)), key=lambda agent: agent.id)
        self.failing: Collection[str] = ()  # the ids of the agents that report a failed activation
        self.errors: list[str] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(self.agents[first::THREADS],)) for first in range(THREADS)
        ]

    def __enter__(self) -> SimulatedFleet:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def bundle_hashes(self) -> tuple[str, str]:
        """Return the desired bundle hash of the first agent, and the hash of the downloaded bundle."""
        agent = self.agents[0]
        desired = self.workspace.request("GET", f"/api/v1/agents/{agent.id}/deployment", agent.key).json()["desired"]
        content = self.workspace.request("GET", desired["bundle_url"], agent.key).content
        return desired["bundle_hash"], f"sha256:{hashlib.sha256(content).hexdigest()}"

    def _run(self, agents: list[SimulatedAgent]) -> None:
        with closing(HTTPConnection(self.address, timeout=PATIENCE_S)) as connection:
            while not self._over.wait(EVERY_S):
                for agent in agents:
                    try:
                        self._send_heartbeat(connection, agent)
                    except Exception as error:
                        self.errors.append(f"{agent.name}: {error!r}")
                        connection.close()
                        time.sleep(0.1)

    def _send_heartbeat(self, connection: HTTPConnection, agent: SimulatedAgent) -> None:
        beat = {"status": "healthy", "agent_version": "1", "active": agent.running}
        status, response = _post(connection, agent, "heartbeat", beat)
        assert status == 200, response
        desired = response["desired"]
        if desired is None or desired["offered_at"] == agent.handled:
            return
        offer = {"deployment_id": desired["deployment_id"], "bundle_hash": desired["bundle_hash"]}
        if desired["action"] == "rollback":
            outcome = "rolled_back"
        else:
            outcome = "failed" if agent.id in self.failing else "active"
        for word in (outcome,) if int(agent.name[-1]) else ("downloading", outcome):
            status, response = _post(connection, agent, "deployment", {**offer, "status": word})
            assert status in {200, 409}, response
            if status == 409:
                return  # the agent has a newer offer
        agent.handled = desired["offered_at"]
        if outcome != "failed":
            agent.running = {**offer, "spec_hash": "sha256:" + "0" * 64}


def _post(connection: HTTPConnection, agent: SimulatedAgent, what: str, body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {agent.key}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/agents/{agent.id}/{what}", json.dumps(body), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())
