"""Compose the messages about events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from apps.notifications.services import limits
from apps.notifications.services.wording import artifacts, fleet, invitations, organization, releases
from apps.notifications.services.wording.content import Content
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent
from byteor_cloud.worker.jobs import is_outage

__all__ = ["Content", "describe", "describe_handled"]

logger = structlog.get_logger(__name__)

_M = MessageType
_DESCRIBE: Mapping[MessageType, Callable[[MessageEvent], Content | None]] = {
    _M.APPROVAL_NEEDED: releases.describe_approval,
    _M.BREAK_GLASS_NEEDED: releases.describe_approval,
    _M.WAVE_HELD: releases.describe_hold,
    _M.ROLLOUT_STOPPED: releases.describe_rollout,
    _M.ROLLOUT_FINISHED: releases.describe_rollout,
    _M.ROLLOUT_ROLLED_BACK: releases.describe_rollout,
    _M.INCIDENT_NEW: artifacts.describe_incident,
    _M.INCIDENT_REOPENED: artifacts.describe_incident,
    _M.FIXTURE_CURRENT_FAILS: artifacts.describe_current_failure,
    _M.AGENTS_FAILED: fleet.describe_agents,
    _M.AGENTS_OFFLINE: fleet.describe_agents,
    _M.AGENT_CLONED: fleet.describe_clone,
    _M.WEBHOOK_FAILING: organization.describe_webhook,
    _M.KEY_EXPIRES: organization.describe_expiry,
    _M.QUOTA_NEAR: organization.describe_quota,
    _M.INVITATION: invitations.describe_invitation,
}


def describe(event: MessageEvent) -> Content | None:
    """Return the current content of the message about the event, or None if the event is obsolete."""
    if _is_deleted(event):
        return None
    describe_type = _DESCRIBE[MessageType(event.type)]
    content = next(filter(None, map(describe_type, limits.find_members(event))), None)
    if content is None or event.count == 1:
        return content
    more = f"1 of {event.count:,} similar events: "
    return replace(content, sentence=more + content.sentence)


def describe_handled(event: MessageEvent) -> Content | None:
    """Return the current content of the message about an event that was already handled, as ``describe`` does.

    If ``describe`` fails for this event, returns the stored sentence, so that one event does not delay other messages.
    """
    try:
        return describe(event)
    except Exception as error:
        if is_outage(error):
            raise
        logger.exception("message_event_not_described", event_id=str(event.pk))
        return Content(event.text, event.path, "Open the console")


def _is_deleted(event: MessageEvent) -> bool:
    return any(row is not None and row.deleted_at is not None for row in (event.project, event.environment))
