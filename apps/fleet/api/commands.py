"""Commands on an agent: rotate its key, drain it, undrain it."""

from __future__ import annotations

from functools import partial

from rest_framework.response import Response

from apps.fleet.api import serializers as s
from apps.fleet.models import Agent
from apps.fleet.services import agents, keys
from apps.tenancy.actors import Actor
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.commands import command
from byteor_cloud.api.operations import Operation
from byteor_cloud.errors import Conflict


def _check_rotate_key(agent: Agent, *, mode: str) -> None:
    check = keys.check_request_rotation if mode == s.RotationMode.BY_AGENT else keys.check_enrolled
    check(agent)


@command(check=_check_rotate_key)
@Operation(
    "rotateAgentKey",
    P.OPERATE_ENVIRONMENT,
    body=s.RotateKeySerializer,
    responses={201: s.RotatedKeySerializer, 202: s.RequestedRotationSerializer},
    errors=(Conflict,),
    example={"mode": "by_agent"},
    holds_secret=True,
)
def rotate_key(agent: Agent, *, mode: str, actor: Actor) -> Response:
    """Rotate an agent's key.

    With `mode: now`, the default, returns a new agent key and revokes the old keys immediately. With `mode: by_agent`,
    returns 202. The responses to the agent's heartbeats then contain the command `rotate_key` until the agent uses a
    new key that it fetched with `rotateOwnKey`, or until the key is rotated with `now`. While a clone of the agent is
    suspected (see `clone_suspected_at`), `by_agent` returns 409, because the clone could fetch the new key. If a person
    rotates the key with `now`, the suspicion is cleared.
    """
    if mode == s.RotationMode.BY_AGENT:
        keys.request_rotation(agent, actor=actor)
        return Response({"agent_id": agent.pk, "mode": s.RotationMode.BY_AGENT}, status=202)
    return Response({"agent_id": agent.pk, "token": keys.rotate_key(agent, actor=actor)}, status=201)


@command(check=partial(agents.check_set_drained, drained=True))
@Operation(
    "drainAgent",
    P.OPERATE_ENVIRONMENT,
    body=s.DrainSerializer,
    errors=(Conflict,),
    example={"reason": "The disk is being replaced."},
)
def drain(agent: Agent, *, reason: str, actor: Actor) -> None:
    """Drain an agent.

    Excludes the agent from new offers, for example while its host is repaired. The agent keeps running its bundle and
    may finish an offer that it already has. A drained agent is in no target: new deployments, later waves and retries
    skip it, and no rollout waits for it. Rollbacks still reach it, because they undo an earlier offer. Liveness and
    drift are reported as usual.
    """
    agents.set_drained(agent, drained=True, reason=reason, actor=actor)


@command(check=partial(agents.check_set_drained, drained=False))
@Operation(
    "undrainAgent",
    P.OPERATE_ENVIRONMENT,
    body=s.DrainSerializer,
    errors=(Conflict,),
    example={"reason": "The new disk is in place."},
)
def undrain(agent: Agent, *, reason: str, actor: Actor) -> None:
    """Undrain an agent.

    Makes the agent eligible for new offers again. If the agent matches the target of a current deployment that it has
    not been offered yet, it is offered this deployment like a late joiner.
    """
    agents.set_drained(agent, drained=False, reason=reason, actor=actor)
