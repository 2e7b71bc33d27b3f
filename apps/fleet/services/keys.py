"""Agent keys: create, revoke and rotate them, and delete old ones together with old enrollment tokens.

A rotation *now* revokes the old key immediately. In a rotation *by the agent*, the agent is asked to fetch a new key
itself. The old key then stays valid until the first use of the new one, for at most 24 hours after the new one was
issued. Until that first use or a rotation *now*, the responses to the agent's heartbeats contain the command to rotate.
If the agent fetches a key again, it gets another one, which replaces the unused one. So an agent that crashed before it
stored its new key can try again with the old one.

Unless rate limits are off, an agent may fetch ``ROTATIONS_PER_HOUR`` new keys per hour. When a rotation by the agent is
requested, the agent may fetch that many again, so that it can carry out the request even after it has reached its
limit.

While a clone is suspected, an agent cannot fetch a new key, because the clone could do so and lock out the original.
Only a person can clear the suspicion, by rotating the key *now*. Enrolling the host again creates a new agent
without the suspicion.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.fleet.models import AGENT_SCOPES, Agent, AgentKey, Command, EnrollmentToken, Heartbeat
from apps.fleet.services import agent_commands
from apps.tenancy.actors import Actor
from apps.tenancy.credentials import UNUSABLE, Family, generate
from apps.tenancy.models import Environment
from apps.tenancy.services import audit, housekeeping
from apps.tenancy.services.state import keep_environments, lock_row
from apps.tenancy.services.tokens import record_credential, revoke
from byteor_cloud.errors import Conflict, TooManyRequests, Unauthenticated

OVERLAP = timedelta(hours=24)
ROTATIONS_PER_HOUR = 3
_HOUR = timedelta(hours=1)


def check_enrolled(agent: Agent) -> None:
    """Raise Conflict if the agent is decommissioned."""
    if agent.decommissioned_at is not None:
        raise Conflict("This agent is decommissioned.", code="decommissioned")


def check_request_rotation(agent: Agent) -> None:
    """Raise Conflict if the agent is decommissioned, or if a clone is suspected. The clone could fetch the new key."""
    check_enrolled(agent)
    if agent.heartbeat.clone_suspected_at is not None:
        raise Conflict(
            "A clone of this agent is suspected, and the clone could fetch the new key. Have a person rotate the key "
            "with `mode: now`, or enroll the agent again.",
            code="clone_suspected",
        )


def create_key(
    agent: Agent,
    *,
    environment: Environment,
    scopes: Sequence[str] = tuple(AGENT_SCOPES),
    is_pending: bool = False,
    counts_as_rotation: bool = False,
    actor: Actor,
) -> str:
    """Create an agent key, record an audit event, and return the secret."""
    secret = generate(Family.AGENT)
    key = AgentKey.objects.create(
        agent=agent,
        digest=secret.digest,
        prefix=secret.prefix,
        scopes=list(scopes),
        is_pending=is_pending,
        counts_as_rotation=counts_as_rotation,
    )
    record_credential("agent_key.create", key, actor=actor, scope=environment, subject=("agent", agent.pk))
    return secret.text


def revoke_keys(agent: Agent, *, environment: Environment, except_key: AgentKey | None = None, actor: Actor) -> None:
    """Revoke all of the agent's keys, except ``except_key`` if given."""
    for key in agent.keys.filter(revoked_at=None).exclude(pk=except_key and except_key.pk):
        revoke(key, action="agent_key.revoke", actor=actor, scope=environment, subject=("agent", agent.pk))


@transaction.atomic
def rotate_key(agent: Agent, *, actor: Actor) -> str:
    """Create a new key for the agent and revoke its old keys immediately. Returns the new secret.

    If a person rotates the key, the suspicion of a clone is cleared, because the clone does not have the new key.
    Raises Conflict if the agent is decommissioned, and NotFound if it was deleted.
    """
    keep_environments(agent.environment_id)
    locked = lock_row(agent)
    check_enrolled(locked)
    revoke_keys(locked, environment=agent.environment, actor=actor)
    agent_commands.remove(locked.pk, Command.ROTATE_KEY)
    if actor.user_id is not None:
        _clear_suspicion(locked, environment=agent.environment, actor=actor)
    return create_key(locked, environment=agent.environment, actor=actor)


@transaction.atomic
def request_rotation(agent: Agent, *, actor: Actor) -> None:
    """Ask the agent, in the responses to its heartbeats, to fetch a new key, and reset its rotation limit.

    A repeated request only resets the limit again. Raises Conflict if ``check_request_rotation`` does, and NotFound if
    the agent was deleted.
    """
    keep_environments(agent.environment_id)
    locked = lock_row(agent)
    check_request_rotation(locked)
    granted = locked.keys.filter(counts_as_rotation=True).update(counts_as_rotation=False)
    if agent_commands.add(locked.pk, Command.ROTATE_KEY) or granted:
        audit.record("agent.request_key_rotation", actor=actor, scope=agent.environment, resource=("agent", locked.pk))


@transaction.atomic
def rotate_own_key(key: AgentKey, *, actor: Actor) -> str:
    """Create a new key with the same scopes for the agent that calls with ``key``. Returns the new secret.

    ``key`` stays valid until the first use of the new key, for at most 24 hours. An earlier new key that is still
    unused is revoked. Raises Unauthenticated if ``key`` is no longer valid or the agent is decommissioned, Conflict
    while a clone is suspected, TooManyRequests after too many rotations, and NotFound if the agent was deleted.
    """
    keep_environments(key.agent.environment_id)
    agent, environment = lock_row(key.agent), key.agent.environment
    used = AgentKey.objects.usable().filter(pk=key.pk).first()
    if used is None or agent.decommissioned_at is not None:
        raise Unauthenticated(UNUSABLE)
    check_request_rotation(agent)
    _check_rotations(agent)
    for unused in agent.keys.filter(is_pending=True, revoked_at=None):
        revoke(unused, action="agent_key.revoke", actor=actor, scope=environment)
    # The old key stays valid for a while, because an agent that cannot store its new key must be able to try again.
    used.expires_at = timezone.now() + OVERLAP
    used.save(update_fields=["expires_at"])
    return create_key(
        agent, environment=environment, scopes=used.scopes, is_pending=True, counts_as_rotation=True, actor=actor
    )


def _check_rotations(agent: Agent) -> None:
    """Raise TooManyRequests at the rotation limit, if rate limits are on. The caller has locked the agent's row."""
    now = timezone.now()
    counted = agent.keys.filter(counts_as_rotation=True, created_at__gt=now - _HOUR).order_by("created_at")
    times = list(counted.values_list("created_at", flat=True))
    if settings.CONFIG.rate_limit and len(times) >= ROTATIONS_PER_HOUR:
        wait = times[-ROTATIONS_PER_HOUR] + _HOUR - now
        raise TooManyRequests(
            f"An agent may fetch {ROTATIONS_PER_HOUR} new keys per hour. Keep the current key and try again later.",
            retry_after=int(wait.total_seconds()) + 1,
        )


@transaction.atomic
def finish_rotation(key: AgentKey, *, actor: Actor) -> None:
    """Revoke the agent's other keys at the first use of ``key``. Later uses change nothing.

    This does not clear the suspicion of a clone, because the clone may have fetched ``key`` before it was suspected.
    """
    keep_environments(key.agent.environment_id)
    agent = lock_row(key.agent)
    pending = AgentKey.objects.usable().filter(pk=key.pk, is_pending=True).first()
    if pending is None:
        return
    pending.is_pending = False
    pending.save(update_fields=["is_pending"])
    revoke_keys(agent, environment=key.agent.environment, except_key=pending, actor=actor)
    agent_commands.remove(agent.pk, Command.ROTATE_KEY)


def _clear_suspicion(agent: Agent, *, environment: Environment, actor: Actor) -> None:
    """Clear the suspicion of a clone, and delete the earlier boot ids that it is based on."""
    heartbeat = Heartbeat.objects.select_for_update(no_key=True).get(agent=agent)
    since = heartbeat.clone_suspected_at
    heartbeat.superseded_boots, heartbeat.clone_suspected_at = {}, None
    heartbeat.save(update_fields=["superseded_boots", "clone_suspected_at"])
    if since is not None:
        audit.record(
            "agent.clear_clone_suspicion",
            actor=actor,
            scope=environment,
            resource=("agent", agent.pk),
            changes={"clone_suspected_at": [since.isoformat(), None]},
        )


def delete_old_credentials(now: datetime | None = None) -> int:
    """Delete enrollment tokens and agent keys that expired or were revoked over 90 days ago. Returns their number."""
    now = now or timezone.now()
    return housekeeping.delete_old(EnrollmentToken, now) + housekeeping.delete_old(AgentKey, now)
