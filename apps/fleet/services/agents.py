"""Rename, relabel, drain, undrain and decommission agents, and enqueue the jobs that offer them deployments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.fleet.jobs import AgentLeft, WelcomeAgent, WelcomeAgents
from apps.fleet.models import Agent
from apps.fleet.services.keys import check_enrolled, revoke_keys
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import keep_environments, lock_row
from byteor_cloud.errors import Conflict, Forbidden
from byteor_cloud.worker.jobs import enqueue

# Agents per job. The limit is needed because the job's transaction locks the environment.
_WELCOME_BATCH = 1_000


def welcome(agent_ids: Sequence[UUID], *, organization: UUID) -> None:
    """Enqueue the jobs in which ``apps.releases`` offers each agent the deployment that is current for the agent."""
    if len(agent_ids) == 1:
        enqueue(WelcomeAgent(agent_id=str(agent_ids[0])), organization=organization)
        return
    for start in range(0, len(agent_ids), _WELCOME_BATCH):
        chunk = agent_ids[start : start + _WELCOME_BATCH]
        enqueue(WelcomeAgents(agent_ids=",".join(map(str, chunk))), organization=organization)


@transaction.atomic
def update_agent(
    agent: Agent, values: Mapping[str, Any], *, may_relabel: bool, actor: Actor, expected_revision: int | None = None
) -> Agent:
    """Change the agent's name or labels. New labels replace all old labels.

    Raises NotFound if the agent was deleted, Forbidden if the labels would change and ``may_relabel`` is false,
    PreconditionFailed if the agent's revision is not ``expected_revision``, and IntegrityError (409) if the name is
    taken.
    """
    locked = lock_revision(agent, expected_revision)
    if not may_relabel and values.get("labels", locked.labels) != locked.labels:
        raise Forbidden("To change labels in a prod environment, you need the permission to manage the environment.")
    changed = edit(
        locked,
        values,
        kind="agent",
        scope=agent.environment,
        actor=actor,
    )
    welcome([agent.pk], organization=agent.environment.project.organization_id)
    return changed


@transaction.atomic
def set_drained(agent: Agent, *, drained: bool, reason: str = "", actor: Actor) -> Agent:
    """Exclude the agent from new offers, or include it again.

    A drained agent keeps running its bundle and may finish an offer that it already has. No rollout waits for it, but
    rollbacks still reach it. When it is undrained, it may be offered the deployment that is current for it. Raises
    NotFound if the agent was deleted, and Conflict if ``check_set_drained`` does.
    """
    # Rollout steps that make offers hold this lock, so none of them is still making an offer after the drain.
    lock_row(agent.environment)
    locked = lock_row(agent)
    check_set_drained(locked, drained=drained)
    before = locked.drained_at
    locked.drained_at = timezone.now() if drained else None
    locked.drain_reason = reason if drained else ""
    locked.revision += 1
    locked.updated_at = timezone.now()
    locked.save(update_fields=["drained_at", "drain_reason", "revision", "updated_at"])
    changes = {"drained_at": [before and before.isoformat(), locked.drained_at and locked.drained_at.isoformat()]}
    audit.record(
        "agent.drain" if drained else "agent.undrain",
        actor=actor,
        scope=agent.environment,
        resource=("agent", locked.pk),
        changes={**changes, "reason": reason},
    )
    organization = agent.environment.project.organization_id
    if drained:
        # A rollout that waits for this agent must continue without it.
        enqueue(AgentLeft(agent_id=str(locked.pk)), organization=organization)
    else:
        welcome([locked.pk], organization=organization)
    return locked


def check_set_drained(agent: Agent, *, drained: bool) -> None:
    """Raise Conflict if the agent is decommissioned, or if its drained state already is ``drained``."""
    check_enrolled(agent)
    if (agent.drained_at is not None) is drained:
        raise Conflict(
            "The agent is already drained." if drained else "The agent is not drained.",
            code="drained" if drained else "not_drained",
        )


@transaction.atomic
def decommission(agent: Agent, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Remove the agent from the fleet and revoke its keys.

    Raises NotFound if the agent was deleted, Conflict if it is already decommissioned, and PreconditionFailed if its
    revision is not ``expected_revision``.
    """
    keep_environments(agent.environment_id)
    locked = lock_revision(agent, expected_revision)
    check_enrolled(locked)
    decommission_locked(locked, environment=agent.environment, actor=actor, action="agent.decommission")


def decommission_locked(agent: Agent, *, environment: Environment, actor: Actor, action: str) -> None:
    """Remove the agent from the fleet and revoke its keys. The caller has locked the agent's row."""
    revoke_keys(agent, environment=environment, actor=actor)
    agent.decommissioned_at = timezone.now()
    agent.save(update_fields=["decommissioned_at"])
    audit.record(action, actor=actor, scope=environment, resource=("agent", agent.pk))
    # A rollout that waits for this agent must continue without it.
    enqueue(AgentLeft(agent_id=str(agent.pk)), organization=environment.project.organization_id)
