"""Record events about break-glass deployments whose approval is still pending shortly before its deadline."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import F
from django.utils import timezone

from apps.notifications.services.sweeps import new_events
from apps.releases.models import Approval
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import Environment, MessageEvent, tenant_ids
from byteor.engine.machines import ApprovalStatus

LAST_CALL = timedelta(minutes=15)


def record_last_calls(now: datetime | None = None) -> None:
    """Record an event for each pending break-glass approval shortly before its deadline.

    The event is recorded 15 minutes before the deadline, or when half of the time is over, whichever is later.
    """
    now = now or timezone.now()
    pending = Approval.objects.filter(
        status=ApprovalStatus.PENDING,
        break_glass=True,
        expires_at__gt=now,
        expires_at__lte=now + LAST_CALL,
        # At most half of the time is left.
        created_at__lte=now - (F("expires_at") - now),
        environment__in=Environment.objects.live(),
    )
    new_events.insert(
        MessageEvent(
            **tenant_ids(approval.environment),
            type=MessageType.BREAK_GLASS_NEEDED,
            resource_kind="approval",
            resource_id=str(approval.pk),
            data={"is_last_call": True},
            key=f"{MessageType.BREAK_GLASS_NEEDED}:{approval.pk}:last",
        )
        for approval in pending.select_related("environment__project").only("environment__project__organization")
    )
