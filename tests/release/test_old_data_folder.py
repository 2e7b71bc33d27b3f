"""A data folder of an old commit of the main branch, whose server was killed, is upgraded by this checkout."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.patience import PATIENCE_S, wait_until
from tests.release.checkouts import Host, Release, check_out
from tests.system.conftest import Installation
from tests.worlds import PLAN

COMMIT = "93b67c405bf886e0fb5b4b852caa595c385a307b"
WAVES = {"kind": "waves", "percents": [50, 100], "pause_s": 0}


class OldServer:
    """The demo of an old release, which fills the data folder and keeps serving."""

    def __init__(self, release: Release, installation: Installation) -> None:
        self._installation = installation
        self._demo = subprocess.Popen(
            [release.python, "-m", "byteor_cloud.demo", "--serve"], cwd=release.source, start_new_session=True,
            env=installation.environment(API_BIND_ADDR=f"127.0.0.1:{installation.port}"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self._demo.stdout is not None
        printed = ""
        for line in self._demo.stdout:
            printed += line
            if line.startswith("Serving on"):
                break
        token = re.search(r"user token +(\S+)", printed)
        assert token is not None, printed
        self.token = token[1]

    def kill(self) -> None:
        """Kill the demo's processes and the database server with SIGKILL, as a power failure would."""
        killed = {self._installation.database_pid()}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.getsid(int(folder.name)) == self._demo.pid:
                    killed.add(int(folder.name))
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._demo.communicate()


class Person:
    """A person who uses the API of the server, whichever release it runs."""

    def __init__(self, base: str, token: str) -> None:
        self._base, self._token = base, token
        path = f"/api/v1/orgs/{self.all('/api/v1/orgs')[0]['id']}/projects"
        self.environments = f"{path}/{self.all(path)[0]['id']}/environments"
        self.production = f"{self.environments}/{self.all(self.environments)[0]['id']}"

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token or self._token}"}
        response = requests.request(method, self._base + path, json=body, headers=headers, timeout=PATIENCE_S)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return response.json()

    def all(self, path: str) -> list[Any]:
        results: list[Any] = self.call("GET", f"{path}?limit=200")["results"]
        return results

    def enroll(self, environment: str, name: str) -> tuple[str, str]:
        """Enroll an agent. Returns its id and its key."""
        token = self.call("POST", f"{environment}/enrollment-tokens", {})["token"]
        made = self.call("POST", f"{environment}/agents", {"name": name}, token)
        return made["agent_id"], made["api_key"]

    def deploy(self, environment: str, name: str, *agents: tuple[str, str], **options: Any) -> str:
        """Deploy a new pipeline to the agents. Returns the path of the deployment."""
        draft = self.call("POST", f"{environment}/drafts", {"name": name, "plan": {**PLAN, "name": name}})
        version = self.call("POST", f"{environment}/drafts/{draft['id']}/version", {})
        bundle = self.call("POST", f"{environment}/config-bundles", {"name": name, "version_id": version["id"]})
        target = {"agents": [agent for agent, _ in agents]}
        body = {"config_bundle_id": bundle["id"], "target": target, **options}
        return f"{environment}/deployments/{self.call('POST', f'{environment}/deployments', body)['id']}"

    def desired(self, agent: tuple[str, str]) -> Any:
        return self.call("GET", f"/api/v1/agents/{agent[0]}/deployment", token=agent[1])["desired"]

    def activate(self, agent: tuple[str, str]) -> None:
        """Wait for the agent's offer, and report as the agent that its bundle is active."""
        wait_until(lambda: self.desired(agent))
        offer = self.desired(agent)
        for status in ("downloading", "activating", "active"):
            body = {"deployment_id": offer["deployment_id"], "status": status, "bundle_hash": offer["bundle_hash"]}
            self.call("POST", f"/api/v1/agents/{agent[0]}/deployment", body, agent[1])

    def wait_for(self, path: str, name: str, value: Any) -> Any:
        wait_until(lambda: self.call("GET", path)[name] == value)
        return self.call("GET", path)


def test_data_folder_of_old_commit_is_upgraded(
    tmp_path_factory: pytest.TempPathFactory, announce: Callable[[str], None]
) -> None:
    old = check_out("old", COMMIT, tmp_path_factory.mktemp("old"))
    installation = Host(old)
    try:
        # The demo waits only a minute for its server. The first start may take longer on a busy machine.
        installation.stop(installation.serve())
        installation.program, installation.folder = Installation.program, Installation.folder
        server = OldServer(old, installation)
        try:
            person = Person(installation.base, server.token)
            body = {"name": "dev", "posture": "dev", "settings": {"max_in_flight_deployments": 3}}
            environment = f"{person.environments}/{person.call('POST', person.environments, body)['id']}"
            agents = [person.enroll(environment, f"agent-{number}") for number in range(4)]
            paused = person.deploy(environment, "paused", *agents[:2], strategy=WAVES)
            wait_until(lambda: person.desired(agents[0]) or person.desired(agents[1]))
            person.call("POST", f"{paused}/pause", {})
            begun = person.deploy(environment, "begun", agents[2])
            wait_until(lambda: person.desired(agents[2]))
            waiting = person.deploy(environment, "waiting", agents[2], agents[3], take_over=True)
            (replay, *_) = person.all(f"{person.production}/replays")
            deployments = person.all(f"{person.production}/deployments")
        finally:
            server.kill()

        installation.serve(RUN_DEMO_AGENTS="true")
        ledger = installation.manage("verify_ledger")
        assert ledger.returncode == 0, ledger.stdout + ledger.stderr
        shown = {each["id"]: each["status"] for each in person.all(f"{person.production}/deployments")}
        assert shown == {each["id"]: each["status"] for each in deployments}

        # The demo's agents continue without intervention.
        seen = {agent["id"]: agent["last_seen_at"] for agent in person.all(f"{person.production}/agents")}
        wait_until(
            lambda: all(
                agent["last_seen_at"] != seen[agent["id"]] and agent["liveness"] == "online"
                for agent in person.all(f"{person.production}/agents")
            )
        )

        # The deployments continue: one in progress, one that waits for it, and a paused one when it is resumed.
        person.activate(agents[2])
        person.wait_for(begun, "status", "active")
        for agent in agents[2:]:
            wait_until(lambda: (person.desired(agent) or {}).get("deployment_id") == waiting.rpartition("/")[2])  # noqa: B023
            person.activate(agent)
        person.wait_for(waiting, "status", "active")
        person.call("POST", f"{paused}/resume", {})
        for agent in sorted(
            agents[:2], key=lambda agent: person.desired(agent) is None
        ):  # the first wave's agent first
            person.activate(agent)
        person.wait_for(paused, "status", "active")

        repeated = person.call("POST", f"{person.production}/artifacts/{replay['artifact_id']}/replay", {})
        repeated = person.wait_for(f"{person.production}/replays/{repeated['id']}", "status", "succeeded")
        assert repeated["result"]["egress"] == replay["result"]["egress"]
        announce(f"{len(seen)} agents and 3 deployments of commit {COMMIT[:7]} continued after the upgrade")
    finally:
        installation.remove()
