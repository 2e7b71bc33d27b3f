"""What agents ran and when. Triggers of the database write it (see ``RunningInterval``)."""

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
    """Return all intervals with their agents, and until when heartbeats confirmed each as ``confirmed``."""
    return RunningInterval.objects.select_related("agent").annotate(
        # An open interval is confirmed by each heartbeat. A column for it would be written by each heartbeat, too.
        confirmed=Coalesce("confirmed_until", Greatest("started_at", "agent__heartbeat__last_seen_at"))
    )


def running_at(moment: datetime) -> QuerySet[Any]:
    """Return the intervals that cover the moment: one of each agent that ran something then."""
    return intervals().filter(Q(ended_at=None) | Q(ended_at__gt=moment), started_at__lte=moment)


def delete_old_history(now: datetime | None = None) -> int:
    """Delete the intervals that ended a year ago; return how many. Those of a deleted agent go with it."""
    return delete_in_batches(RunningInterval.objects.filter(ended_at__lt=(now or timezone.now()) - HISTORY_KEPT_FOR))
