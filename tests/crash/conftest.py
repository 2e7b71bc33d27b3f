"""A served workspace, and the means to kill each of its processes."""

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
    """An installation that serves, with a dev environment in it; requests through the public API."""

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
        """One request on a connection of its own."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return requests.request(method, self.installation.base + path, headers=headers, timeout=PATIENCE_S, **options)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What was created."""
        answer = self.request("POST", path, json=body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        """What is there."""
        answer = self.request("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def config_bundle(self, **config: Any) -> Any:
        """A config bundle of a newly promoted draft."""
        draft = self.post(f"{self.environment}/drafts", {"name": "quotes", "plan": PLAN})
        version = self.post(f"{self.environment}/drafts/{draft['id']}/version", {})
        return self.post(
            f"{self.environment}/config-bundles", {"name": "quotes", "version_id": version["id"], **config}
        )

    def enrollment_token(self) -> str:
        """One use."""
        token: str = self.post(f"{self.environment}/enrollment-tokens", {})["token"]
        return token

    # -- processes ----------------------------------------------------------------------------------------------

    def _child(self, what: str) -> int:
        """A process that the supervisor keeps running; one that was killed just now comes again."""

        found: list[int] = []

        def is_there() -> bool:
            found[:] = [pid for pid, line in children(self.server.pid).items() if what in line]
            return bool(found)

        wait_until(is_there)
        return found[0]

    def worker(self) -> int:
        """The process that runs the jobs."""
        return self._child("manage.py worker")

    def api_processes(self) -> list[int]:
        """The processes that answer requests."""
        return list(children(self._child("gunicorn")))

    def kill_everything(self) -> None:
        """What a power cut leaves of the processes."""
        master = self._child("gunicorn")
        victims = [self.server.pid, *children(self.server.pid), *children(master), self.installation.database_pid()]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.wait()
        self.installation.servers.remove(self.server)
        wait_until(lambda: not any(lives(pid) for pid in victims))

    def restart(self) -> None:
        """Serve on the same address; one agent here beats for a whole fleet."""
        self.server = self.installation.serve(RATE_LIMIT="off", **self.settings)


def lives(pid: int) -> bool:
    """Whether the process runs; one that has ended may wait for its parent to notice."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def workspace() -> Iterator[Workspace]:
    """One for all the tests, which leave it serving."""
    made = Workspace(REPLAY_EXEC_ALLOWLIST="/bin/sh")
    yield made
    made.installation.remove()
