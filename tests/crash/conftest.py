"""A running installation whose processes the tests can kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
import requests

from tests.patience import PATIENCE_S, wait_until
from tests.system.conftest import Installation, children
from tests.worlds import PLAN


class Workspace:
    """A running installation with a dev environment, used through its public API."""

    def __init__(self, **settings: str) -> None:
        self.installation = Installation()
        self.settings = settings
        try:
            self._make()
        except BaseException:
            self.installation.remove()
            raise

    def _make(self) -> None:
        self.restart()
        made = self.installation.bootstrap()
        self.token: str = made["token"]
        organization = f"/api/v1/orgs/{made['org_id']}"
        project = self.post(f"{organization}/projects", {"name": "trading"})["id"]
        environment = {"name": "dev", "posture": "dev", "settings": {"heartbeat_interval_s": 5}}
        made_environment = self.post(f"{organization}/projects/{project}/environments", environment)
        self.environment = f"{organization}/projects/{project}/environments/{made_environment['id']}"

    def request(self, method: str, path: str, token: str | None = None, **options: Any) -> requests.Response:
        """Send a request on a new connection."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return requests.request(method, self.installation.base + path, headers=headers, timeout=PATIENCE_S, **options)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a POST request that must succeed, and return the JSON of the response."""
        response = self.request("POST", path, json=body)
        assert response.status_code in {200, 201}, response.text
        return response.json()

    def get(self, path: str) -> Any:
        """Return the JSON of a GET request that must succeed."""
        response = self.request("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    def config_bundle(self, **config: Any) -> Any:
        """Create a config bundle for a newly promoted draft."""
        draft = self.post(f"{self.environment}/drafts", {"name": "quotes", "plan": PLAN})
        version = self.post(f"{self.environment}/drafts/{draft['id']}/version", {})
        return self.post(
            f"{self.environment}/config-bundles", {"name": "quotes", "version_id": version["id"], **config}
        )

    def enrollment_token(self) -> str:
        """Create an enrollment token with one use."""
        token: str = self.post(f"{self.environment}/enrollment-tokens", {})["token"]
        return token

    # -- processes ----------------------------------------------------------------------------------------------

    def _child(self, command: str) -> int:
        """Return the id of a supervised process. Waits while the supervisor restarts it."""

        found: list[int] = []

        def is_there() -> bool:
            found[:] = [pid for pid, line in children(self.server.pid).items() if command in line]
            return bool(found)

        wait_until(is_there)
        return found[0]

    def worker(self) -> int:
        """Return the id of the worker process."""
        return self._child("byteor_cloud worker")

    def api_processes(self) -> list[int]:
        """Return the ids of the API processes."""
        return list(children(self._child("gunicorn")))

    def kill_everything(self) -> None:
        """Kill the supervisor, its processes and the database with SIGKILL, so that none of them shuts down cleanly."""
        master = self._child("gunicorn")
        victims = [self.server.pid, *children(self.server.pid), *children(master), self.installation.database_pid()]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.wait()
        self.installation.servers.remove(self.server)
        wait_until(lambda: not any(lives(pid) for pid in victims))

    def restart(self) -> None:
        """Start a server on the same address, without rate limits, because the agents send many requests."""
        self.server = self.installation.serve(RATE_LIMIT="off", **self.settings)


def lives(pid: int) -> bool:
    """Return whether the process is running. A zombie does not count."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second error if the process ends while the file is open
        return False


@pytest.fixture(scope="package")
def workspace() -> Iterator[Workspace]:
    """Start a workspace that tests of this package share. Each test must leave it running."""
    made = Workspace(REPLAY_EXEC_ALLOWLIST="/bin/sh")
    yield made
    made.installation.remove()
