"""Requested captures."""

from __future__ import annotations

from apps.artifacts.models import RequestedCapture
from apps.artifacts.services import requested_captures
from apps.fleet.models import Agent
from tests.permissions import OPERATE, VIEW
from tests.resources import Call, E, Place, Resource, Table
from tests.resources.agents import agent


def capture(place: Place) -> RequestedCapture:
    return requested_captures.request(place.get(agent), reason="slow", actor=place.world.operator.actor)


def idle(place: Place) -> Agent:
    """Enroll an agent from which no capture was requested in the last minute."""
    return place.world.agent(place.environment, place.name("idle"))[0]


RESOURCE = Resource(
    calls=(
        Call("requestCapture", "POST", E + "/agents/{id}/capture", OPERATE, 202, on=idle),
        Call("listRequestedCaptures", "GET", E + "/agents/{id}/captures", VIEW),
        Call("getRequestedCapture", "GET", E + "/agents/{id}/captures/{capture_id}", VIEW),
    ),
    tables=(Table("artifacts.requestedcapture", VIEW, capture, "Requested captures"),),
    ids={"capture_id": capture},
)  # fmt: skip
