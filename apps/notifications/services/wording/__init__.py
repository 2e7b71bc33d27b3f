"""What messages say about events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from apps.notifications.services.wording import invitations, releases
from apps.notifications.services.wording.content import Content
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import MessageEvent

__all__ = ["Content", "describe"]

_M = MessageType
_DESCRIBE: Mapping[MessageType, Callable[[MessageEvent], Content | None]] = {
    _M.APPROVAL_NEEDED: releases.describe_approval,
    _M.BREAK_GLASS_NEEDED: releases.describe_approval,
    _M.WAVE_HELD: releases.describe_hold,
    _M.ROLLOUT_STOPPED: releases.describe_rollout,
    _M.ROLLOUT_FINISHED: releases.describe_rollout,
    _M.ROLLOUT_ROLLED_BACK: releases.describe_rollout,
    _M.INVITATION: invitations.describe_invitation,
}


def describe(event: MessageEvent) -> Content | None:
    """Return what a message says about the event now. None if nobody has to know any more."""
    describe_type = _DESCRIBE.get(MessageType(event.type))
    content = None if describe_type is None else describe_type(event)
    if content is None or event.count == 1:
        return content
    more = f"This and {event.count - 1:,} more like it: "
    return replace(content, sentence=more + content.sentence)
