"""The list of agents whose keys are refused. After a restore, it shows the agents with keys newer than the backup.

Anybody can send a key that looks valid with any agent id, so the number of rows is limited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from apps.fleet.models import Agent, RefusedAgent
from byteor_cloud.database.deletion import delete_in_batches

MOST_ROWS = 10_000
KEPT_FOR = timedelta(days=30)
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('fleet.refused_agents', 0))"


@transaction.atomic
def store_refused(agent_ids: Sequence[UUID]) -> None:
    """Store that the keys of these agents were refused now.

    If there are too many rows, agents that the database knows replace unknown ones, whose ids strangers may have
    invented. New agents for which there is still no room are not stored.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)  # otherwise processes could together exceed the maximum, or deadlock
    now, known = timezone.now(), RefusedAgent.objects.filter(pk__in=agent_ids)
    new = sorted(set(agent_ids) - set(known.values_list("pk", flat=True)))
    known.update(last_at=now)
    free = MOST_ROWS - RefusedAgent.objects.count()
    if len(new) > free:
        enrolled = set(Agent.objects.filter(pk__in=new).values_list("pk", flat=True))
        new.sort(key=lambda each: each not in enrolled)
        free += _delete_unknown(len(enrolled) - free)
    RefusedAgent.objects.bulk_create(
        RefusedAgent(agent_id=each, first_at=now, last_at=now) for each in new[: max(0, free)]
    )


def _delete_unknown(count: int) -> int:
    """Delete up to ``count`` rows of agents that the database does not know, and return the number of deleted rows."""
    unknown = RefusedAgent.objects.exclude(pk__in=Agent.objects.values("pk"))
    return RefusedAgent.objects.filter(pk__in=unknown.order_by("last_at", "pk")[: max(0, count)]).delete()[0]


class RefusalReason(StrEnum):
    """Why the key of an agent is refused, as far as the database knows."""

    UNKNOWN_AGENT = "unknown_agent"  # after a restore, it may have been enrolled after the backup
    UNUSABLE_KEY = "unusable_key"  # after a restore, the key may have been rotated after the backup
    DECOMMISSIONED = "decommissioned"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRefusal:
    """An entry of the list. The four names are None if the database does not know the agent."""

    agent_id: UUID
    reason: RefusalReason
    name: str | None
    organization: str | None
    project: str | None
    environment: str | None
    first_at: datetime
    last_at: datetime
    # The agent's last heartbeat with a usable key. If it is later than ``last_at``, the agent probably has a new key.
    heartbeat_at: datetime | None


def list_refused() -> list[ListedRefusal]:
    """Return the stored agents, the last refused first. ``delete_old_refused`` deletes old ones."""
    rows = list(RefusedAgent.objects.order_by("-last_at", "agent_id"))
    known = Agent.objects.filter(pk__in=[row.pk for row in rows]).values_list(
        "pk", "decommissioned_at", "name", "environment__project__organization__name", "environment__project__name",
        "environment__name", "heartbeat__last_seen_at",
    )  # fmt: skip
    by_id = {pk: rest for pk, *rest in known}
    found = []
    for row in rows:
        ended_at, name, organization, project, environment, heartbeat_at = by_id.get(row.pk, (None,) * 6)
        if row.pk not in by_id:
            reason = RefusalReason.UNKNOWN_AGENT
        else:
            reason = RefusalReason.DECOMMISSIONED if ended_at else RefusalReason.UNUSABLE_KEY
        found.append(
            ListedRefusal(
                agent_id=row.pk, reason=reason, name=name, organization=organization, project=project,
                environment=environment, first_at=row.first_at, last_at=row.last_at, heartbeat_at=heartbeat_at,
            )
        )  # fmt: skip
    return found


def delete_old_refused(now: datetime | None = None) -> int:
    """Delete the rows of agents that have not been refused for 30 days. Returns their number."""
    return delete_in_batches(RefusedAgent.objects.filter(last_at__lt=(now or timezone.now()) - KEPT_FOR))
