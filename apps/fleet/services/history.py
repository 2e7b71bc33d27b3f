"""The history of what agents ran and when: queries and retention. Triggers write it (see ``RunningInterval``)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from apps.fleet.models import RunningInterval
from byteor_cloud.database.deletion import delete_in_batches

HISTORY_KEPT_FOR = timedelta(days=365)


def intervals() -> QuerySet[Any]:
    """Return all intervals with their agents. ``confirmed`` is when a heartbeat last confirmed the interval."""
    return RunningInterval.objects.select_related("agent").annotate(
        # Each heartbeat confirms the open interval. A column for this would need another write for each heartbeat.
        confirmed=Coalesce("confirmed_until", Greatest("started_at", "agent__heartbeat__last_seen_at"))
    )


def running_at(moment: datetime) -> QuerySet[Any]:
    """Return the intervals that contain the moment, at most one for each agent.

    An open interval has no end. So for an agent that was offline or decommissioned at that time, it shows the bundle
    that the agent last reported.
    """
    return intervals().filter(Q(ended_at=None) | Q(ended_at__gt=moment), started_at__lte=moment)


def delete_old_history(now: datetime | None = None) -> int:
    """Delete the intervals that ended more than a year ago. Returns their number."""
    return delete_in_batches(RunningInterval.objects.filter(ended_at__lt=(now or timezone.now()) - HISTORY_KEPT_FOR))
