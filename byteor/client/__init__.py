"""The typed client of the API, blocking (``ByteOr``) and asynchronous (``AsyncByteOr``).

>>> with ByteOr("https://byteor.example.com", token) as client:
...     prod = client.environment(org_id, project_id, environment_id)
...     for agent in prod.list_agents(status="failed"):
...         print(agent.name)

Each operation of the API's document is a method of its level: ``createDeployment`` is
``client.environment(…).create_deployment(…)``. Lists are iterators that read one page after the other. Errors are
exceptions of ``byteor.client.errors``.
"""

from __future__ import annotations

from typing import Any, Self

from byteor.client.errors import (
    ApiError,
    ByteOrError,
    Conflict,
    ConnectionFailed,
    EditConflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedResponse,
)
from byteor.client.resources import (
    AsyncEnvironment,
    AsyncInstallation,
    AsyncOrganization,
    AsyncOwnAgent,
    AsyncProject,
    Environment,
    Installation,
    Organization,
    OwnAgent,
    Project,
)
from byteor.client.runtime import OMITTED, AsyncConnection, Connection, Request

__all__ = [
    "OMITTED", "ApiError", "AsyncByteOr", "ByteOr", "ByteOrError", "Conflict", "ConnectionFailed", "EditConflict",
    "Forbidden", "InvalidRequest", "NotFound", "TooManyRequests", "Unauthorized", "Unavailable", "UnexpectedResponse",
]  # fmt: skip
TIMEOUT_S = 60.0  # for each step of a transfer, not for the whole


class ByteOr(Installation):
    """A blocking client. ``token`` is any credential of the API; None for operations that need none."""

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
        """Return the operations that the agent with the client's key calls."""
        return OwnAgent(self, id)

    def request(self, method: str, path: str, *, query: dict[str, Any] | None = None, fields: Any = None) -> Any:
        """Send any request, and return the JSON of the response; None if it has none."""
        response = self._connection.send(Request(method.upper(), path, query=query or {}, fields=fields))
        return response.json() if response.content else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncByteOr(AsyncInstallation):
    """Like ``ByteOr``, asynchronous."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = TIMEOUT_S) -> None:
        super().__init__(AsyncConnection(url, token, timeout))

    def organization(self, org_id: str) -> AsyncOrganization:
        """Return the operations of an organization."""
        return AsyncOrganization(self, org_id)

    def project(self, org_id: str, project_id: str) -> AsyncProject:
        """Return the operations of a project."""
        return AsyncProject(self, org_id, project_id)

    def environment(self, org_id: str, project_id: str, env_id: str) -> AsyncEnvironment:
        """Return the operations of an environment."""
        return AsyncEnvironment(self, org_id, project_id, env_id)

    def own_agent(self, id: str) -> AsyncOwnAgent:
        """Return the operations that the agent with the client's key calls."""
        return AsyncOwnAgent(self, id)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
