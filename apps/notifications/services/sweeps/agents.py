"""Record events about agents that went offline, failed, or seem to run on two machines.

The sweep compares the offline and failed agents with those that it has already recorded (``NotifiedState``), so
heartbeats do not become more expensive.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Min
from django.utils import timezone

from apps.fleet.models import OFFLINE_AFTER, Heartbeat
from apps.notifications.models import AgentWatch
from apps.notifications.services.limits import LIMITS
from apps.notifications.services.sweeps import new_events
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import Environment, MessageEvent, tenant_ids
from apps.tenancy.services import hosts

MAX_NAMES, MAX_NAME = 3, 60  # agents that a message names, and characters of each name
FAILURES_COUNT_FOR = timedelta(days=1)
"""How long an agent counts as failed after it failed a deployment."""
# If the sweep did not run for this long, the worker or the database was probably down, so heartbeats may be missing.
OUTAGE = timedelta(minutes=2)
# If at least this many agents go silent and no other agent sends heartbeats, the heartbeats probably cannot reach the
# control plane, so nobody is notified. With fewer silent agents, the sweep does not assume this.
MANY = 100
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

# The late agents that have sent a heartbeat and have no ``NotifiedState`` of this type, except for drained agents,
# which may be switched off. ``gone_at`` is when an agent goes offline. ``counts_from`` is when it counts as offline:
# ten intervals after its last heartbeat or after ``reachable_since``, whichever is later. OFFSET 0 makes PostgreSQL
# find these agents first, so that it reads only their heartbeats.
_LATE = f"""
    SELECT pulse.agent_id, pulse.environment_id, beat.last_seen_at, beat.given,
        beat.last_seen_at + {OFFLINE_AFTER} * beat.given AS gone_at,
        greatest(beat.last_seen_at, %(reachable_since)s) + {OFFLINE_AFTER} * beat.given AS counts_from
    FROM (
        SELECT agent_id, environment_id FROM fleet_pulse AS late
        WHERE online_until < %(now)s AND NOT EXISTS (
            SELECT FROM notifications_notifiedstate AS state
            WHERE state.kind = %(type)s AND state.resource_id = late.agent_id
        ) AND NOT EXISTS (SELECT FROM fleet_agent WHERE id = late.agent_id AND drained_at IS NOT NULL)
        OFFSET 0
    ) AS pulse CROSS JOIN LATERAL (
        SELECT last_seen_at, interval '1 s' * next_heartbeat_s AS given FROM fleet_heartbeat
        WHERE agent_id = pulse.agent_id AND last_seen_at IS NOT NULL OFFSET 0
    ) AS beat
"""  # noqa: S608  built from constants
# Finding the newest heartbeat scans the table, because an index would make heartbeats slower. The subquery is executed
# only if at least ``MANY`` agents are late, which is rare.
_IS_CUT_OFF = f"""
SELECT CASE WHEN count(*) >= {MANY} AND count(*) FILTER (WHERE gone_at < %(now)s) > 0
    THEN (SELECT max(last_seen_at) FROM fleet_heartbeat)
        < max(last_seen_at + {OFFLINE_AFTER / 2:g} * given) FILTER (WHERE gone_at < %(now)s)
    ELSE false END
FROM ({_LATE}) AS late
"""  # noqa: S608  built from constants
_OFFLINE = f"SELECT agent_id, environment_id FROM ({_LATE}) AS late WHERE counts_from < %(now)s"  # noqa: S608  built from constants
_FAILED = """
SELECT agent_id, environment_id FROM fleet_pulse AS pulse WHERE status = 'failed' AND NOT EXISTS (
    SELECT FROM notifications_notifiedstate AS state WHERE state.kind = %(type)s AND state.resource_id = pulse.agent_id)
UNION SELECT agent.id, agent.environment_id
FROM fleet_assignment AS assigned JOIN fleet_agent AS agent ON agent.id = assigned.agent_id
WHERE assigned.failed_since > %(failed_after)s AND NOT EXISTS (
    SELECT FROM notifications_notifiedstate AS state
    WHERE state.kind = %(type)s AND state.resource_id = agent.id AND state.at >= assigned.failed_since)
"""
_ONLINE_AGAIN = """
DELETE FROM notifications_notifiedstate AS state WHERE kind = %(type)s AND NOT EXISTS (
    SELECT FROM fleet_pulse AS pulse WHERE pulse.agent_id = state.resource_id AND pulse.online_until < %(now)s)
"""
_WORKS_AGAIN = """
DELETE FROM notifications_notifiedstate AS state WHERE kind = %(type)s AND NOT EXISTS (
    SELECT FROM fleet_pulse AS pulse JOIN fleet_assignment AS assigned ON assigned.agent_id = pulse.agent_id
    WHERE pulse.agent_id = state.resource_id
        AND (pulse.status = 'failed' OR assigned.failed_since > %(failed_after)s))
"""
# Inserts the states. Returns the number of agents in each environment, and the first of their names. Excludes
# environments with a recent event of this type: their next event covers the agents that are still offline or failed
# then.
_RECORD = f"""
WITH found AS MATERIALIZED ({{found}}),  -- so that no scan reads the rows that this statement inserts
places AS MATERIALIZED (
    SELECT environment.id
    FROM tenancy_environment AS environment JOIN tenancy_project AS project ON project.id = environment.project_id
    WHERE environment.id IN (SELECT environment_id FROM found)
        AND environment.deleted_at IS NULL AND project.deleted_at IS NULL AND NOT EXISTS (
            SELECT FROM tenancy_messageevent AS event
            WHERE event.organization_id = project.organization_id AND event.type = %(type)s
                AND event.environment_id = environment.id AND event.subject = ''
                AND (event.outcome = '{EventOutcome.PENDING}' OR event.handled_at > %(limit)s))
), recorded AS (
    INSERT INTO notifications_notifiedstate (kind, resource_id, at)
    SELECT %(type)s, agent.id, %(now)s FROM fleet_agent AS agent
    WHERE agent.id IN (SELECT agent_id FROM found) AND agent.environment_id IN (SELECT id FROM places)
        AND agent.decommissioned_at IS NULL
    ON CONFLICT (kind, resource_id) DO UPDATE SET at = excluded.at
    RETURNING resource_id
)
SELECT agent.environment_id, count(*), (array_agg(left(agent.name, {MAX_NAME}) ORDER BY agent.name))[1:{MAX_NAMES}]
FROM recorded JOIN fleet_agent AS agent ON agent.id = recorded.resource_id GROUP BY agent.environment_id
"""  # noqa: S608  built from constants


@transaction.atomic
def record_offline_and_failed(now: datetime | None = None) -> None:
    """Record one event for each environment in which agents went offline, and one for each in which agents failed.

    The first run records no events, because it cannot know which states are new. An environment gets at most one event
    of each type in 10 minutes. Agents that may have been unable to send heartbeats do not count as offline (see
    ``_find_reachable_since``).
    """
    now = now or timezone.now()
    AgentWatch.objects.bulk_create([AgentWatch()], ignore_conflicts=True)
    watch = AgentWatch.objects.select_for_update().get()
    is_first = watch.looked_at is None
    reachable_since = _find_reachable_since(watch, now)
    failed = {"now": now, "type": MessageType.AGENTS_FAILED.value, "failed_after": now - FAILURES_COUNT_FOR}
    offline = {"now": now, "type": MessageType.AGENTS_OFFLINE.value, "reachable_since": reachable_since or _LONG_AGO}
    _execute(_ONLINE_AGAIN, offline)
    _execute(_WORKS_AGAIN, failed)
    if is_first:
        offline["reachable_since"] = _LONG_AGO
    elif reachable_since is not None and _execute(_IS_CUT_OFF, offline) == [(True,)]:
        reachable_since = None
    found = list(_record(_FAILED, failed))
    if is_first or reachable_since is not None:
        found += _record(_OFFLINE, offline)
    if not is_first:
        MessageEvent.objects.bulk_create(found)
    watch.looked_at, watch.reachable_since = now, reachable_since or now
    watch.save(update_fields=["looked_at", "reachable_since"])


def _find_reachable_since(watch: AgentWatch, now: datetime) -> datetime | None:
    """Return a time since which agents can send heartbeats without a break; None if they currently cannot.

    They cannot if no API server is running. After an outage of all servers or of the sweep, agents get time to return.
    """
    servers = hosts.live().exclude(mode="worker")
    started_at: datetime | None = servers.order_by().aggregate(at=Min("started_at"))["at"]
    if started_at is None:
        return None
    before = watch.reachable_since
    if watch.looked_at is None or before is None or now - watch.looked_at > OUTAGE:
        return now
    return max(before, started_at)


def _record(found: str, values: dict[str, Any]) -> Iterator[MessageEvent]:
    """Execute ``_RECORD`` with the query ``found``. Yields an event for each environment, to be inserted."""
    limit = LIMITS[MessageType(values["type"])].window
    rows = _execute(_RECORD.format(found=found), {**values, "limit": values["now"] - limit})
    environments = Environment.objects.select_related("project").in_bulk(
        [environment_id for environment_id, *_ in rows]
    )
    for environment_id, count, names in rows:
        yield MessageEvent(
            **tenant_ids(environments[environment_id]),
            type=values["type"],
            resource_kind="environment",
            resource_id=str(environment_id),
            data={"agents": count, "names": names},
        )


def _execute(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


def record_clones(now: datetime | None = None) -> None:
    """Record an event for each agent for which a clone was recently suspected."""
    rows = Heartbeat.objects.filter(
        clone_suspected_at__gt=(now or timezone.now()) - new_events.LOOKED_BACK,
        agent__decommissioned_at=None,
        agent__environment__in=Environment.objects.live(),
    ).order_by("clone_suspected_at")
    found = list(rows.values_list("agent_id", "agent__environment_id", "clone_suspected_at"))
    environments = Environment.objects.select_related("project").in_bulk({place for _, place, _ in found})
    new_events.insert(
        MessageEvent(
            **tenant_ids(environments[place]),
            type=MessageType.AGENT_CLONED,
            resource_kind="agent",
            resource_id=str(agent_id),
            key=f"{MessageType.AGENT_CLONED}:{agent_id}:{suspected_at.isoformat()}",
        )
        for agent_id, place, suspected_at in found
        if suspected_at is not None  # true for all, since the rows are filtered by it
    )
