"""The selection of agents by a deployment's target or by their ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db.models.expressions import RawSQL

from apps.fleet.models import Agent
from apps.tenancy.models import Environment
from byteor.engine.target import Target


def select_agents(environment: Environment, target: Target, *, with_drained: bool = False) -> Any:
    """Return the environment's enrolled agents that a deployment's target selects, ordered by id.

    Drained agents are in no target. ``with_drained`` includes them, to explain why an agent is missing.
    """
    agents = Agent.objects.enrolled().filter(environment=environment).order_by("id")
    if not with_drained:
        agents = agents.filter(drained_at=None)
    if target.agents is not None:
        return agents.filter(pk__in=unnest_ids(target.agents))
    if target.selector is not None:
        return agents.filter(labels__contains=target.selector)
    return agents


def unnest_ids(agent_ids: Iterable[UUID | str]) -> RawSQL:
    """Return an expression for an ``__in`` lookup that passes any number of ids as one query parameter."""
    return RawSQL("SELECT unnest(%s::uuid[])", [list(agent_ids)])
