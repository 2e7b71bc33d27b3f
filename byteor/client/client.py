# Written by tests/clients/write_client.py from async_client.py. Do not edit: run `make schema`.
"""The client of a server: the operations of all levels."""

from __future__ import annotations

from typing import Any, Self

from byteor.client.request import TIMEOUT_S, Request, content_of
from byteor.client.resources import (
    Environment,
    Installation,
    Organization,
    OwnAgent,
    Project,
)
from byteor.client.runtime import Connection


class ByteOr(Installation):
    """A client. ``token`` is any credential of the API, or None for public operations. ``timeout`` is in seconds."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = TIMEOUT_S) -> None:
        super().__init__(Connection(url, token, timeout))

    def organization(self, org_id: str) -> Organization:
        """Return the operations of an organization."""
        return Organization(self, org_id)

    def project(self, org_id: str, project_id: str) -> Project:
        """Return the operations of a project."""
        return Project(self, org_id, project_id)

    def environment(self, org_id: str, project_id: str, env_id: str) -> Environment:
        """Return the operations of an environment."""
        return Environment(self, org_id, project_id, env_id)

    def own_agent(self, id: str) -> OwnAgent:
        """Return the operations that an agent calls with its own key."""
        return OwnAgent(self, id)

    def request(self, method: str, path: str, *, query: dict[str, Any] | None = None, fields: Any = None) -> Any:
        """Send any request, and return the JSON of the response, or None for the status 204."""
        sent = Request(method.upper(), path, query=query or {}, fields=fields)
        response = self._connection.send(sent)
        return content_of(response, "json") if response.status_code != 204 else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
