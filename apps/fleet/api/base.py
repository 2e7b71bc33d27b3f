"""The base of the agents' own routes: an agent is what its key says; the id in the path is only compared."""

from __future__ import annotations

from typing import ClassVar

from apps.fleet.models import Agent, AgentKey
from apps.tenancy import audit
from apps.tenancy.api.base import ApiViewSet
from apps.tenancy.credentials import Family
from apps.tenancy.models import Environment
from byteor_cloud.errors import Forbidden, NotFound


class AgentSelfViewSet(ApiViewSet):
    """Below ``/agents/{id}`` with the agent's key; ``agent_scope`` is what the key must permit."""

    agent_scope: ClassVar[str | None] = None
    body_cap = "max_agent_body_bytes"
    agent: Agent
    environment: Environment

    @classmethod
    def families(cls, action: str) -> tuple[Family, ...]:
        return (Family.AGENT,)

    def resolve_scope(self) -> None:
        key = self.principal.credential
        assert isinstance(key, AgentKey)  # noqa: S101  the family was checked
        if key.agent_id != self.kwargs["id"]:
            raise NotFound("There is no resource at this URL.")
        self.agent, self.environment = key.agent, key.agent.environment
        if self.agent_scope is not None and self.agent_scope not in key.scopes:
            raise Forbidden(f"This key does not permit {self.agent_scope}.")

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "environment", None)
