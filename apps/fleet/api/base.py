"""The base class of the views that agents call. The path must contain the id of the agent whose key is used."""

from __future__ import annotations

from typing import ClassVar

from apps.fleet.models import Agent, AgentKey
from apps.tenancy.api.base import ApiViewSet
from apps.tenancy.credentials import Family
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from byteor_cloud.errors import Forbidden, NotFound


class AgentSelfViewSet(ApiViewSet):
    """A view set below ``/agents/{id}`` that accepts only agent keys. A key needs the scope ``agent_scope``, if set."""

    credentials = (Family.AGENT,)
    agent_scope: ClassVar[str | None] = None
    body_cap = "max_agent_body_bytes"
    agent: Agent
    environment: Environment

    def resolve_scope(self) -> None:
        key = self.principal.credential
        assert isinstance(key, AgentKey)  # noqa: S101  the authentication accepts agent keys only
        if key.agent_id != self.kwargs["id"]:
            raise NotFound("There is no resource at this URL.")
        self.agent, self.environment = key.agent, key.agent.environment
        if self.agent_scope is not None and self.agent_scope not in key.scopes:
            raise Forbidden(f"This agent key does not have the scope {self.agent_scope}.")

    @property
    def scope(self) -> audit.Scope:
        return getattr(self, "environment", None)
