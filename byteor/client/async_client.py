"""The client of a server: the operations of all levels."""

from __future__ import annotations

from typing import Any, Self

from byteor.client.async_resources import (
    AsyncEnvironment,
    AsyncInstallation,
    AsyncOrganization,
    AsyncOwnAgent,
    AsyncProject,
)
from byteor.client.async_runtime import AsyncConnection
from byteor.client.request import TIMEOUT_S, Request, content_of


class AsyncByteOr(AsyncInstallation):
    """A client. ``token`` is any credential of the API, or None for public operations. ``timeout`` is in seconds."""

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
        """Return the operations that an agent calls with its own key."""
        return AsyncOwnAgent(self, id)

    async def request(self, method: str, path: str, *, query: dict[str, Any] | None = None, fields: Any = None) -> Any:
        """Send any request, and return the JSON of the response, or None for the status 204."""
        sent = Request(method.upper(), path, query=query or {}, fields=fields)
        response = await self._connection.send(sent)
        return content_of(response, "json") if response.status_code != 204 else None

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
