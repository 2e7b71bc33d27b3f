"""What agents ran and when. Triggers of the database write it (see ``RunningInterval``)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.fleet.models import Agent, RunningInterval
from apps.tenancy.models import Environment
from apps.tenancy.pruning import delete_in_batches

HISTORY_KEPT_FOR = timedelta(days=365)


def intervals() -> QuerySet[Any]:
    """Return all intervals with their agents, and until when heartbeats confirmed each as ``confirmed``."""
    return RunningInterval.objects.select_related("agent").annotate(
        # An interval that began with the newest heartbeat may be a little later than it, never earlier.
        confirmed=Coalesce("confirmed_until", "agent__heartbeat__last_seen_at", "started_at")
    )


def running_at(environment: Environment, moment: datetime) -> QuerySet[Any]:
    """Return the interval of each agent of the environment that ran something then, decommissioned agents included.

    Each agent's last interval that began before is looked up by an index. A search through all intervals would read the
    whole history for a moment long ago.
    """
    last = RunningInterval.objects.filter(agent=OuterRef("pk"), started_at__lte=moment).order_by("-started_at", "-id")
    agents = Agent.objects.filter(environment=environment).values(last=Subquery(last.values("pk")[:1]))
    return intervals().filter(Q(ended_at=None) | Q(ended_at__gt=moment), agent__environment=environment, pk__in=agents)


def forget_history(now: datetime | None = None) -> int:
    """Delete the intervals that ended a year ago; return how many. Those of a deleted agent go with it."""
    return delete_in_batches(RunningInterval.objects.filter(ended_at__lt=(now or timezone.now()) - HISTORY_KEPT_FOR))
