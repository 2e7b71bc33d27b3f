"""Agents, their keys and their assignments."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from apps.fleet.models import Agent, RefusedAgent
from apps.fleet.services import agents, series
from byteor_cloud.ids import uuid7
from tests.permissions import MANAGE, OPERATE, VIEW, NoRole
from tests.resources import AGENT_TEXT, MACHINE, Act, Call, E, Further, Place, Resource, Table
from tests.worlds import Api


def enrolled(place: Place) -> tuple[Agent, Api]:
    """Enroll an agent. Return the agent and its client."""
    return place.world.agent(place.environment, place.name("agent"))


def agent(place: Place) -> Agent:
    return place.get(enrolled)[0]


def drained(place: Place) -> Agent:
    made, _ = place.world.agent(place.environment, "drained")
    agents.set_drained(made, drained=True, reason="", actor=place.world.admin.actor)
    return made


def refused_agent(place: Place) -> RefusedAgent:
    return RefusedAgent.objects.create(agent_id=uuid7(), first_at=timezone.now(), last_at=timezone.now())


def _renamed(place: Place) -> dict[str, Any]:
    return {"name": "renamed", "labels": place.get(agent).labels}


_SLOTS = dict.fromkeys(series.VALUES, "at most 96 numbers")
_LABELS = "at most 64 labels, by which people select agents"
RESOURCE = Resource(
    calls=(
        Call("listAgents", "GET", E + "/agents", VIEW, null=frozenset({"report"}), is_free=True),
        Call("enrollAgent", "POST", E + "/agents", NoRole.ENROLLMENT_TOKEN, 201),
        Call("getAgent", "GET", E + "/agents/{id}", VIEW),
        Call(
            "updateAgent", "PATCH", E + "/agents/{id}", OPERATE, body=_renamed,
            further={"other labels, in prod": Further(MANAGE, lambda place: {"labels": {"zone": "b"}})},
        ),
        Call("decommissionAgent", "DELETE", E + "/agents/{id}", OPERATE, 204),
        Call(
            "labelAgents", "POST", E + "/agents/labels", OPERATE, on_prod=MANAGE,
            body=lambda place: {"selector": {"zone": "a"}, "set": {"zone": "b"}},
        ),
        Call("rotateAgentKey", "POST", E + "/agents/{id}/rotate-key", OPERATE, 201, body=lambda place: {"mode": "now"}),
        Call("drainAgent", "POST", E + "/agents/{id}/drain", OPERATE),
        Call("undrainAgent", "POST", E + "/agents/{id}/undrain", OPERATE, on=drained),
        Call("explainAgent", "GET", E + "/agents/{id}/explain", VIEW),
        Call("listAgentHistory", "GET", E + "/agents/{id}/history", VIEW),
        Call("getAgentSeries", "GET", E + "/agents/{id}/series", VIEW),
        Call("getEnvironmentSeries", "GET", E + "/series", VIEW),
        Call("getAgentSummary", "GET", E + "/agents/summary", VIEW),
        Call("listFleetState", "GET", E + "/fleet-state", VIEW),
    ),
    tables=(
        Table(
            "fleet.agent", VIEW, agent, "Agents",
            acts={
                "drain": Act("drainAgent"),
                "undrain": Act("undrainAgent"),
                "capture": Act("requestCapture", {"reason": "slow"}),
                "relabel": Act("labelAgents", {"comment": "zone=b"}, on_prod=MANAGE),
                "rotate_key": Act("rotateAgentKey"),
                "revoke": Act("decommissionAgent"),
            },
            short={"labels": _LABELS, "public_key": "at most 2,000 characters"},
        ),
        Table(
            "fleet.agentkey", VIEW, agent, acts={"revoke": Act(needs=OPERATE)}, short={"scopes": MACHINE}
        ),
        Table(
            "fleet.heartbeat", VIEW, agent,
            large=frozenset({"report", "superseded_boots", "series_closed"}),
            short={
                "commands": MACHINE,
                "series_boots": "at most four texts of 64 characters",
                **dict.fromkeys(("series_read", "series_recent", "series_sums", "series_last"), "at most ten numbers"),
            },
        ),
        Table("fleet.assignment", VIEW, agent, short={"failed_detail": AGENT_TEXT}),
        Table("fleet.pulse"),
        Table("fleet.pulsecount"),
        Table("fleet.changedagent"),
        Table(
            "fleet.labelcount", short={"key": "at most 128 characters", "value": "at most 255 characters"}
        ),
        Table("fleet.runninginterval"),
        Table("fleet.refusedagent", row=refused_agent),
        Table("fleet.savedsearch"),
        Table("fleet.agentseries", short=_SLOTS),
        Table("fleet.environmentseries", short=_SLOTS),
    ),
    ids={"agents": agent},
)  # fmt: skip
