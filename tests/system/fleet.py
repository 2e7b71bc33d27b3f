"""An environment and its agents in a running installation."""

from __future__ import annotations

from typing import Any

import requests

from tests.patience import PATIENCE_S
from tests.system.conftest import Installation


class Fleet:
    """An environment of an installation and its agents, used through the public API."""

    def __init__(self, installation: Installation, org: str = "Fleet", **settings: str) -> None:
        self.base = installation.base
        made = installation.bootstrap(org, **settings)
        self.token = made["token"]
        project = f"/api/v1/orgs/{made['org_id']}/projects"
        project += "/" + self.call("POST", project, {"name": "trading"})["id"]
        environment = f"{project}/environments"
        self.environment = f"{environment}/{self.call('POST', environment, {'name': 'dev', 'posture': 'dev'})['id']}"

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        response = requests.request(method, self.base + path, json=body, headers=headers, timeout=PATIENCE_S)
        response.raise_for_status()
        return response.json() if response.content else None

    def agent(self, name: str) -> tuple[str, str]:
        token = self.call("POST", f"{self.environment}/enrollment-tokens", {})["token"]
        made = self.call("POST", f"{self.environment}/agents", {"name": name}, token)
        return made["agent_id"], made["api_key"]

    def beat(self, session: requests.Session, agent: tuple[str, str], version: str = "1") -> requests.Response:
        return session.post(
            f"{self.base}/api/v1/agents/{agent[0]}/heartbeat",
            json={"status": "healthy", "agent_version": version},
            headers={"Authorization": f"Bearer {agent[1]}"},
            timeout=PATIENCE_S,
        )
