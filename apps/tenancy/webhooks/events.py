"""The events that webhooks tell of: audit events of deployments and approvals, under their action's name. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from byteor_cloud.engine.machines import ApprovalEvent, DeploymentEvent

FAMILIES = ("deployment.", "approval.")
WILDCARDS = ("*", *(f"{family}*" for family in FAMILIES))
# What is no step of a machine.
_FURTHER = (
    "deployment.create",
    "deployment.pause",
    "deployment.resume",
    "approval.request",
    "approval.decision.approve",
    "approval.decision.deny",
)
TYPES = tuple(
    sorted(
        {
            *_FURTHER,
            *(f"deployment.{event}" for event in DeploymentEvent),
            *(f"approval.{event}" for event in ApprovalEvent),
        }
    )
)
PING = "webhook.ping"


class Outcome(StrEnum):
    """What became of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def type_of(action: str) -> str:
    """The type under which a receiver hears of an audit event."""
    return "ping" if action == PING else action


def action_of(type: str) -> str:
    """The action of the audit events that a receiver hears of under that type."""
    return PING if type == "ping" else type


def wants(patterns: Iterable[str], action: str) -> bool:
    """Whether one of the patterns, types or wildcards, covers the event of that action."""
    return any(action.startswith(p.removesuffix("*")) if p.endswith("*") else action == p for p in patterns)
