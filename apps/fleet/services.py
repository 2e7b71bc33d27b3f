"""Services of agents and their credentials, and the selection of a deployment's agents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.expressions import RawSQL
from django.utils import timezone

from apps.fleet.jobs import AgentLeft, WelcomeAgent
from apps.fleet.models import AGENT_SCOPES, Agent, AgentKey, Assignment, EnrollmentToken, Heartbeat
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family, generate
from apps.tenancy.models import Environment
from apps.tenancy.services import housekeeping
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.tokens import record_credential, revoke
from apps.tenancy.state import lock_row
from byteor_cloud.engine.target import Target
from byteor_cloud.errors import Conflict, Unauthenticated
from byteor_cloud.ids import uuid7
from byteor_cloud.jobs import enqueue

TOKEN_LIFETIME_S = 3600


@transaction.atomic
def create_enrollment_token(
    *,
    environment: Environment,
    expires_in_s: int = TOKEN_LIFETIME_S,
    max_uses: int = 1,
    labels: Mapping[str, str] | None = None,
    replace: bool = False,
    actor: Actor,
) -> tuple[EnrollmentToken, str]:
    """Create an enrollment token of the environment; return it with its secret."""
    secret = generate(Family.ENROLLMENT)
    token = EnrollmentToken.objects.create(
        environment=environment,
        digest=secret.digest,
        prefix=secret.prefix,
        expires_at=timezone.now() + timedelta(seconds=expires_in_s),
        max_uses=max_uses,
        labels=dict(labels or {}),
        replace=replace,
    )
    record_credential(
        "enrollment_token.create",
        token,
        actor=actor,
        scope=environment,
        changes={"max_uses": [None, max_uses]},
    )
    return token, secret.text


def _free_name(environment: Environment, wanted: str) -> str:
    """Return an unused agent name made from the host name.

    If two enrollments choose the same name at once, the unique constraint lets only one of them succeed.
    """
    name = wanted[:200]  # a host name may be longer than a name
    if not Agent.objects.enrolled().filter(environment=environment, name=name).exists():
        return name
    return f"{name[:180]}-{str(uuid7())[-8:]}"


@transaction.atomic
def enroll(
    *,
    token: EnrollmentToken,
    environment: Environment,
    name: str | None = None,
    hostname: str = "",
    labels: Mapping[str, str] | None = None,
    public_key: str = "",
    actor: Actor,
) -> tuple[Agent, str]:
    """Spend one use of the token; create an agent and its key. Raises Unauthenticated if the token was just spent."""
    locked = lock_row(token)
    if locked.is_spent or locked.revoked_at or (locked.expires_at and locked.expires_at <= timezone.now()):
        raise Unauthenticated("The credential is unknown, expired or revoked.")
    chosen = name or _free_name(environment, hostname or "agent")
    if locked.replace:
        # A lock of the key would block the history of a heartbeat that this transaction waits for.
        replaced = Agent.objects.enrolled().filter(environment=environment, name=chosen)
        for old in replaced.select_for_update(no_key=True):
            _decommission(old, environment=environment, actor=actor, action="agent.supersede")
    agent = Agent.objects.create(
        environment=environment,
        name=chosen,
        hostname=hostname,
        labels={**(labels or {}), **locked.labels},
        public_key=public_key,
    )
    Heartbeat.objects.create(agent=agent, next_heartbeat_s=environment.effective_settings.heartbeat_interval_s)
    Assignment.objects.create(agent=agent)
    key = _create_key(agent, environment=environment, actor=actor)
    locked.uses += 1
    locked.last_used_at = timezone.now()
    locked.save(update_fields=["uses", "last_used_at"])
    audit.record(
        "agent.enroll",
        actor=actor,
        scope=environment,
        resource=("agent", agent.pk),
        changes={"name": [None, chosen], "enrollment_token": str(token.pk)},
    )
    # apps.releases decides which running deployment the new agent is offered.
    enqueue(WelcomeAgent(agent_id=str(agent.pk)), organization=environment.project.organization_id)
    return agent, key


def _create_key(agent: Agent, *, environment: Environment, actor: Actor) -> str:
    secret = generate(Family.AGENT)
    key = AgentKey.objects.create(agent=agent, digest=secret.digest, prefix=secret.prefix, scopes=AGENT_SCOPES)
    record_credential("agent_key.create", key, actor=actor, scope=environment)
    return secret.text


def _revoke_keys(agent: Agent, *, environment: Environment, actor: Actor) -> None:
    for key in agent.keys.filter(revoked_at=None):
        revoke(key, action="agent_key.revoke", actor=actor, scope=environment)


@transaction.atomic
def rotate_key(agent: Agent, *, actor: Actor) -> str:
    """Create a new key for the agent and revoke the old ones at once. Returns the new secret."""
    locked = lock_row(agent)
    _check_enrolled(locked)
    _revoke_keys(locked, environment=agent.environment, actor=actor)
    return _create_key(locked, environment=agent.environment, actor=actor)


def _check_enrolled(agent: Agent) -> None:
    if agent.decommissioned_at is not None:
        raise Conflict("This agent is decommissioned.", code="decommissioned")


@transaction.atomic
def update_agent(
    agent: Agent, values: Mapping[str, Any], *, actor: Actor, expected_revision: int | None = None
) -> Agent:
    """Change the agent's name or labels. The new labels replace all old ones."""
    changed = edit(
        agent,
        values,
        kind="agent",
        scope=agent.environment,
        actor=actor,
        expected_revision=expected_revision,
    )
    enqueue(WelcomeAgent(agent_id=str(agent.pk)), organization=agent.environment.project.organization_id)
    return changed


@transaction.atomic
def decommission(agent: Agent, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Remove the agent from the fleet and revoke its key at once."""
    locked = lock_revision(agent, expected_revision)
    _check_enrolled(locked)
    _decommission(locked, environment=agent.environment, actor=actor, action="agent.decommission")


def _decommission(agent: Agent, *, environment: Environment, actor: Actor, action: str) -> None:
    _revoke_keys(agent, environment=environment, actor=actor)
    agent.decommissioned_at = timezone.now()
    agent.save(update_fields=["decommissioned_at"])
    audit.record(action, actor=actor, scope=environment, resource=("agent", agent.pk))
    # A rollout that waits for this agent must go on without it.
    enqueue(AgentLeft(agent_id=str(agent.pk)), organization=environment.project.organization_id)


def forget_credentials(now: datetime | None = None) -> int:
    """Delete enrollment tokens and agent keys that expired or were revoked 90 days ago; return how many."""
    now = now or timezone.now()
    return housekeeping.forget_ended(EnrollmentToken, now) + housekeeping.forget_ended(AgentKey, now)


def select_agents(environment: Environment, target: Target) -> Any:
    """Return the enrolled agents that a deployment's target selects, ordered by id."""
    agents = Agent.objects.enrolled().filter(environment=environment).order_by("id")
    if target.agents is not None:
        return agents.filter(pk__in=unnest_ids(target.agents))
    if target.selector is not None:
        return agents.filter(labels__contains=target.selector)
    return agents


def unnest_ids(agent_ids: Iterable[UUID | str]) -> RawSQL:
    """Return an expression for ``agent_id__in`` that passes any number of ids as one query parameter."""
    return RawSQL("SELECT unnest(%s::uuid[])", [list(agent_ids)])
