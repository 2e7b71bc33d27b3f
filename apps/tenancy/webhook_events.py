"""The event types of webhooks (actions of audit events, and ``ping``), and the statuses of deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from apps.tenancy.message_types import REMINDER
from byteor.engine.machines import ApprovalEvent, DeploymentEvent

FAMILIES = ("deployment.", "approval.")
WILDCARDS = ("*", *(f"{family}*" for family in FAMILIES))
# Actions of ``FAMILIES`` that are not events of a state machine.
_OTHER_ACTIONS = (
    "deployment.create",
    "deployment.pause",
    "deployment.resume",
    "deployment.hold",
    "deployment.next_wave",
    "deployment.change_reviewers",
    "approval.request",
    REMINDER,
    "approval.decision.approve",
    "approval.decision.deny",
)
# Event types that belong to no family, so that no wildcard except "*" matches them.
_SINGLE = ("fixture.current_fails",)
TYPES = tuple(
    sorted(
        {
            *_SINGLE,
            *_OTHER_ACTIONS,
            *(f"deployment.{event}" for event in DeploymentEvent),
            *(f"approval.{event}" for event in ApprovalEvent),
        }
    )
)
PATTERNS = (*WILDCARDS, *TYPES)
"""The event types and wildcards that a webhook can subscribe to."""
PING = "webhook.ping"
NAMES: Final[Mapping[str, str]] = {
    "*": "All events",
    "deployment.*": "All deployment events",
    "approval.*": "All approval events",
    "deployment.create": "Deployment requested",
    "deployment.approve": "Deployment cleared to start",
    "deployment.build": "Deployment build started",
    "deployment.offer": "Deployment offered to agents",
    "deployment.hold": "Deployment held before its next wave",
    "deployment.next_wave": "Next wave started manually",
    "deployment.pause": "Deployment paused",
    "deployment.resume": "Deployment resumed",
    "deployment.retry": "Deployment retried",
    "deployment.activate": "Deployment completed",
    "deployment.fail": "Deployment failed",
    "deployment.abort": "Deployment aborted",
    "deployment.deny": "Deployment denied",
    "deployment.roll_back": "Rollback started",
    "deployment.restore": "Rollback completed",
    "deployment.change_reviewers": "Reviewers of a deployment changed",
    "approval.request": "Approval requested",
    REMINDER: "Reminder of an approval sent",
    "approval.decision.approve": "Decision to approve",
    "approval.decision.deny": "Decision to deny",
    "approval.approve": "Approval completed",
    "approval.deny": "Approval denied",
    "approval.expire": "Approval expired",
    "approval.revoke": "Approval revoked",
    "fixture.current_fails": "Current deployment fails a golden fixture or cannot be tested",
}
"""The display name of each pattern."""


class Outcome(StrEnum):
    """The status of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def is_announced(action: str) -> bool:
    """Return whether webhooks can subscribe to audit events with this action, by its event type or by a wildcard."""
    return action.startswith(FAMILIES) or action in _SINGLE


def type_of(action: str) -> str:
    """Return the event type that a receiver sees for an audit event's action."""
    return "ping" if action == PING else action


def action_of(type: str) -> str:
    """Return the audit event's action for an event type: the inverse of ``type_of``."""
    return PING if type == "ping" else type


def matches_any(patterns: Iterable[str], action: str) -> bool:
    """Return whether one of the patterns (event types or wildcards) matches the action."""
    return any(action.startswith(p.removesuffix("*")) if p.endswith("*") else action == p for p in patterns)


def name_of(type: str) -> str:
    """Return the name of an event type; the type itself if it has no name."""
    return "Test event" if type == "ping" else NAMES.get(type, type)
