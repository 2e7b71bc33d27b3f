"""The types of events about which people are notified, and when a person gets an e-mail about an event."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from byteor.engine.machines import DeploymentEvent


class MessageType(StrEnum):
    """The type of an event. For each type except ``INVITATION``, people choose when they get e-mails."""

    APPROVAL_NEEDED = "approval.needed"
    WAVE_HELD = "wave.held"
    ROLLOUT_STOPPED = "rollout.stopped"
    ROLLOUT_FINISHED = "rollout.finished"
    ROLLOUT_ROLLED_BACK = "rollout.rolled_back"
    BREAK_GLASS_NEEDED = "break_glass.needed"
    INCIDENT_NEW = "incident.new"
    INCIDENT_REOPENED = "incident.reopened"
    FIXTURE_CURRENT_FAILS = "fixture.current_fails"
    AGENTS_FAILED = "agents.failed"
    AGENTS_OFFLINE = "agents.offline"
    AGENT_CLONED = "agent.cloned"
    WEBHOOK_FAILING = "webhook.failing"
    KEY_EXPIRES = "key.expires"
    QUOTA_NEAR = "quota.near"
    INVITATION = "member.invited"


_M = MessageType
DESCRIPTIONS: Mapping[MessageType, str] = {
    _M.APPROVAL_NEEDED: "An approval is waiting for your decision.",
    _M.BREAK_GLASS_NEEDED: "A deployment started without approval and is waiting for your decision.",
    _M.WAVE_HELD: "The next wave of a rollout is on hold.",
    _M.ROLLOUT_STOPPED: "A deployment failed, was denied or was aborted.",
    _M.ROLLOUT_FINISHED: "A rollout finished.",
    _M.ROLLOUT_ROLLED_BACK: "A deployment was rolled back.",
    _M.INCIDENT_NEW: "An agent uploaded an incident capture that was not requested.",
    _M.INCIDENT_REOPENED: (
        "An incident happened again after 7 to 30 days, or a reopened incident happened again. "
        "An incident that happens again after more than 30 days counts as new."
    ),
    _M.FIXTURE_CURRENT_FAILS: "The current deployment of an environment fails a golden fixture or cannot be tested.",
    _M.AGENTS_FAILED: "Agents failed.",
    _M.AGENTS_OFFLINE: "Agents went offline.",
    _M.AGENT_CLONED: "An agent seems to run on two machines.",
    _M.WEBHOOK_FAILING: "A webhook is failing, or was disabled because it failed.",
    _M.KEY_EXPIRES: "A credential expires soon.",
    _M.QUOTA_NEAR: "The organization has used most of a quota.",
}
"""A description of each type for which people choose when they get e-mails."""
CHOOSABLE = tuple(DESCRIPTIONS)


class Timing(StrEnum):
    """When a person gets an e-mail about an event: never, immediately or a few minutes later, or in a daily summary."""

    OFF = "off"
    NOW = "now"
    DAILY = "daily"


class EventOutcome(StrEnum):
    """How an event was handled.

    ``pending``: the event was not handled yet. ``notified``: everybody concerned was notified, if there was anybody.
    ``grouped``: a later message covers the event, possibly together with others. ``obsolete``: the message no longer
    applied when the event was handled, for example because the approval was already decided, or the installation was
    restored from a backup before people were notified. ``failed``: every attempt to handle the event raised an error.
    """

    PENDING = "pending"
    NOTIFIED = "notified"
    GROUPED = "grouped"
    OBSOLETE = "obsolete"
    FAILED = "failed"


REMINDER = "approval.remind"
"""The action of the audit event that a reminder of an approval records."""

# The actions of audit events about which people are notified. ``type_of`` also depends on the changes.
_TYPES: Mapping[str, MessageType] = {
    "approval.request": MessageType.APPROVAL_NEEDED,
    REMINDER: MessageType.APPROVAL_NEEDED,
    "deployment.hold": MessageType.WAVE_HELD,
    f"deployment.{DeploymentEvent.DENY}": MessageType.ROLLOUT_STOPPED,
    f"deployment.{DeploymentEvent.FAIL}": MessageType.ROLLOUT_STOPPED,
    f"deployment.{DeploymentEvent.ABORT}": MessageType.ROLLOUT_STOPPED,
    f"deployment.{DeploymentEvent.ACTIVATE}": MessageType.ROLLOUT_FINISHED,
    f"deployment.{DeploymentEvent.RESTORE}": MessageType.ROLLOUT_ROLLED_BACK,
    "fixture.current_fails": MessageType.FIXTURE_CURRENT_FAILS,
    "webhook.disable": MessageType.WEBHOOK_FAILING,
    "chat_webhook.disable": MessageType.WEBHOOK_FAILING,
}


def type_of(action: str, changes: Mapping[str, Any]) -> MessageType | None:
    """Return the type of the event that an audit event causes, or None if it causes none."""
    if action in {"approval.request", REMINDER} and changes.get("break_glass"):
        return MessageType.BREAK_GLASS_NEEDED
    return _TYPES.get(action)
