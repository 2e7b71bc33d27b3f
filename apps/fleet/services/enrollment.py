"""Enrollment: create enrollment tokens, and enroll hosts as agents with these tokens.

A whole fleet may enroll with one token, and the token's row counts the uses. So one transaction handles several
enrollments: it locks each token once, and inserts the new rows of a table together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import reduce
from operator import or_
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.fleet.models import AGENT_SCOPES, Agent, AgentKey, Assignment, EnrollmentToken, Heartbeat
from apps.fleet.services.agents import decommission_locked, welcome
from apps.fleet.services.labels import MAX_LABELS
from apps.tenancy.actors import Actor
from apps.tenancy.credentials import Family, Secret, generate
from apps.tenancy.models import AuditEvent, Environment, Quota
from apps.tenancy.services import audit
from apps.tenancy.services.quotas import Allowance, lock_allowances
from apps.tenancy.services.state import keep_environments
from apps.tenancy.services.tokens import record_credential
from byteor_cloud.errors import Conflict, DomainError, InvalidInput, Unauthenticated
from byteor_cloud.ids import uuid7

TOKEN_LIFETIME_S = 3600
_MAX_NAME = 200


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
    """Create an enrollment token for the environment. Returns the token and its secret."""
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


def find_enrolled(token: EnrollmentToken, *, limit: int) -> list[Agent]:
    """Return the newest agents that enrolled with the token, at most ``limit``, each with its heartbeat."""
    events = AuditEvent.objects.filter(
        organization=token.environment.project.organization_id, actor_id=str(token.pk), action="agent.enroll"
    )
    ids = list(events.order_by("-id").values_list("resource_id", flat=True)[:limit])
    agents = Agent.objects.filter(pk__in=ids, environment=token.environment_id).select_related("heartbeat")
    return sorted(agents, key=lambda agent: ids.index(str(agent.pk)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """A host's request to become an agent of the environment.

    Without a ``name``, the agent's name is derived from the host name, or from ``agent`` if there is none.
    """

    token: EnrollmentToken
    environment: Environment
    actor: Actor
    name: str | None = None
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    public_key: str = ""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new agent, and the secret of its key."""

    agent: Agent
    secret: Secret


def enroll(request: Enrollment) -> Enrolled:
    """Spend one use of the token and create an agent with its key.

    Raises Unauthenticated if the token is not usable, InvalidInput if the agent would have too many labels, Conflict if
    the requested name is taken and the token does not permit replacing agents, QuotaExceeded if the organization has
    used up its agent quota and no agent is replaced, and IntegrityError if a concurrent transaction takes the name.
    """
    (result,) = enroll_all([request])
    if isinstance(result, DomainError):
        raise result
    return result


@transaction.atomic
def enroll_all(requests: Sequence[Enrollment]) -> list[Enrolled | DomainError]:
    """Enroll several hosts in one transaction. Returns a new agent or an error for each request, in the same order.

    A refused request spends no use. Raises IntegrityError if a concurrent transaction takes one of the names, or if a
    request would replace the new agent of another one.
    """
    keep_environments(*{request.environment.pk for request in requests})
    tokens = _lock_tokens(request.token.pk for request in requests)
    _lock_replaced(request for request in requests if request.name and request.token.replace)
    names = _Names(requests)
    # Lock the quotas last, because all enrollments of an organization need this lock, and should hold it briefly.
    allowances = lock_allowances({_organization_of(request) for request in requests}, Quota.AGENTS)
    results: dict[int, Enrolled | DomainError] = {}
    accepted: list[tuple[Enrollment, Enrolled]] = []
    # Process names in a fixed order, so that transactions with the same names cannot deadlock.
    for number, request in sorted(enumerate(requests), key=lambda each: _sort_key(each[1])):
        try:
            token, allowance = tokens.get(request.token.pk), allowances.get(_organization_of(request))
            results[number] = made = _spend(request, token, names, allowance)
        except DomainError as refusal:
            results[number] = refusal
        else:
            accepted.append((request, made))
    if accepted:
        _store(accepted)
        for pk in {request.token.pk for request, _ in accepted}:
            tokens[pk].last_used_at = timezone.now()
            tokens[pk].save(update_fields=["uses", "last_used_at"])
    return [results[number] for number in range(len(requests))]


def _organization_of(request: Enrollment) -> UUID:
    return request.environment.project.organization_id


def _sort_key(request: Enrollment) -> tuple[str, str]:
    return str(request.environment.pk), _requested_name(request)


def _lock_tokens(ids: Iterable[UUID]) -> dict[UUID, EnrollmentToken]:
    # Lock rows in the order of their ids, so that two transactions cannot deadlock.
    rows = EnrollmentToken.objects.filter(pk__in=set(ids)).order_by("pk").select_for_update(no_key=True)
    return {token.pk: token for token in rows}


def _lock_replaced(requests: Iterable[Enrollment]) -> None:
    # Lock agents in the order of their ids, to avoid deadlocks.
    taken = [Q(environment=request.environment, name=request.name) for request in requests]
    if taken:
        rows = Agent.objects.enrolled().filter(reduce(or_, taken)).order_by("pk")
        list(rows.select_for_update(no_key=True).values_list("pk"))


class _Names:
    """The requested names that are taken: by enrolled agents, or by new agents of this batch."""

    def __init__(self, requests: Iterable[Enrollment]) -> None:
        environments = {request.environment.pk for request in requests}
        requested = {_requested_name(request) for request in requests}
        found = Agent.objects.enrolled().filter(environment__in=environments, name__in=requested)
        self._taken = set(found.values_list("environment_id", "name"))

    def is_taken(self, environment: Environment, name: str) -> bool:
        return (environment.pk, name) in self._taken

    def take(self, environment: Environment, name: str) -> None:
        self._taken.add((environment.pk, name))


def _requested_name(request: Enrollment) -> str:
    # A host name may be longer than an agent's name.
    return request.name or (request.hostname or "agent")[:_MAX_NAME]


def _spend(request: Enrollment, token: EnrollmentToken | None, names: _Names, allowance: Allowance | None) -> Enrolled:
    """Count a use of the locked token. Returns the new agent, which is not stored yet, and the secret of its key.

    Decommissions the agent that the new one replaces. Raises DomainError without counting a use.
    """
    if token is None or token.is_spent or token.revoked_at or (token.expires_at and token.expires_at <= timezone.now()):
        raise Unauthenticated("The enrollment token is unknown, expired, revoked or spent.")
    environment, name = request.environment, _requested_name(request)
    labels = {**request.labels, **token.labels}
    if len(labels) > MAX_LABELS:
        detail = f"With the labels of the token, the agent would have more than {MAX_LABELS} labels."
        raise InvalidInput.at("/labels", detail, code="too_many")
    replaced: list[Agent] = []
    if names.is_taken(environment, name):
        if request.name is None:
            name = f"{name[:180]}-{str(uuid7())[-8:]}"
        elif token.replace:
            replaced = list(
                Agent.objects.enrolled().select_for_update(no_key=True).filter(environment=environment, name=name)
            )
        else:
            raise Conflict("That name is already taken. Choose another one.", code="name_taken")
    if allowance is not None:
        allowance.take(0 if replaced else 1)
    for old in replaced:
        decommission_locked(old, environment=environment, actor=request.actor, action="agent.supersede")
    names.take(environment, name)
    token.uses += 1
    agent = Agent(
        environment=environment,
        name=name,
        hostname=request.hostname,
        labels=labels,
        public_key=request.public_key,
    )
    return Enrolled(agent, generate(Family.AGENT))


def _store(accepted: Sequence[tuple[Enrollment, Enrolled]]) -> None:
    """Store new agents with all their rows and audit events, and enqueue the jobs that offer them bundles."""
    agents = [made.agent for _, made in accepted]
    Agent.objects.bulk_create(agents)
    Heartbeat.objects.bulk_create(
        Heartbeat(agent=agent, next_heartbeat_s=agent.environment.effective_settings.heartbeat_interval_s)
        for agent in agents
    )
    Assignment.objects.bulk_create(Assignment(agent=agent) for agent in agents)
    keys = AgentKey.objects.bulk_create(
        AgentKey(agent=made.agent, digest=made.secret.digest, prefix=made.secret.prefix, scopes=AGENT_SCOPES)
        for _, made in accepted
    )
    audit.record_all(
        entry
        for (request, made), key in zip(accepted, keys, strict=True)
        for entry in (
            audit.Entry(
                "agent_key.create", request.actor, request.environment, ("agentkey", key.pk), {"prefix": key.prefix}
            ),
            audit.Entry(
                "agent.enroll",
                request.actor,
                request.environment,
                ("agent", made.agent.pk),
                {"name": [None, made.agent.name], "enrollment_token": str(request.token.pk)},
            ),
        )
    )
    organizations: dict[UUID, list[UUID]] = {}
    for agent in agents:
        organizations.setdefault(agent.environment.project.organization_id, []).append(agent.pk)
    for organization, ids in organizations.items():
        welcome(ids, organization=organization)
