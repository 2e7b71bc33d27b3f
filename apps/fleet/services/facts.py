"""Filters and counts over all agents of an environment, read from narrow rows: see ``Pulse`` and ``LabelCount``.

They take about as long for 100,000 agents as for 1,000, because they never read a heartbeat's report, and because each
page of a filtered list reads the rows of its own agents only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import batched
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Subquery, Sum, Value, When
from django.db.models.lookups import Exact
from django.utils import timezone

from apps.fleet.models import (
    OFFLINE_AFTER,
    STALE_AFTER,
    Agent,
    Assignment,
    ChangedAgent,
    Heartbeat,
    LabelCount,
    Liveness,
    Pulse,
    PulseCount,
)
from apps.tenancy.models import Environment
from apps.tenancy.policy import DEFAULT_HEARTBEAT_INTERVAL_S
from byteor_cloud.storage import space

MAX_VALUES = 50  # of a label key in a summary
MAX_KEYS = 200
AT_ONCE = 5000  # agents, in a transaction
LOCKS_AT_ONCE = 100  # of environments, always in the order of their ids
REFRESHED_BEFORE_S = 15  # at least twice the interval of the job
_LABELS = """
SELECT key, value, count FROM (
    SELECT *, row_number() OVER (PARTITION BY key ORDER BY count DESC, value) AS place,
        dense_rank() OVER (ORDER BY in_all DESC, key) AS key_place
    FROM (
        SELECT key, value, sum(count)::bigint AS count, sum(sum(count)) OVER (PARTITION BY key) AS in_all
        FROM fleet_labelcount WHERE environment_id = %s GROUP BY key, value HAVING sum(count) > 0
    ) AS counted
) AS ranked WHERE place <= %s AND key_place <= %s ORDER BY key_place, place
"""
_CONDENSE = """
WITH gone AS (DELETE FROM {table} WHERE environment_id = %s RETURNING {columns}, count)
INSERT INTO {table} (environment_id, {columns}, count)
SELECT %s, {columns}, sum(count) FROM gone GROUP BY {columns} HAVING sum(count) <> 0
"""
_COUNTED_BY = {LabelCount: ("key", "value"), PulseCount: ("drifted", "status", "running_bundle_hash")}
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(%s::text[]) AS name"
# What the pulses of some agents should be. An agent is told to send its next heartbeat after 0.9 intervals at the
# earliest, and it is stale after three times as long. The rest is room for heartbeats that are being stored while the
# interval changes. For silent agents see the trigger ``fleet_heartbeat_note``.
_FACTS = f"""
SELECT agent_id, environment_id,
    CASE WHEN silent THEN seen_at + {STALE_AFTER} * told
        ELSE seen_at + {0.8 * STALE_AFTER:g} * least(told, usual) END AS online_until,
    CASE WHEN silent THEN seen_at + {OFFLINE_AFTER} * told END AS offline_at,
    drifted, status, running_bundle_hash
FROM (
    SELECT agent.id AS agent_id, agent.environment_id, seen_at, told, now() > seen_at + 2.5 * told AS silent,
        interval '1 s' * coalesce(
            (environment.settings->>'heartbeat_interval_s')::float8, {DEFAULT_HEARTBEAT_INTERVAL_S}
        ) AS usual,
        wanted.bundle_hash IS NOT NULL AND beat.running_bundle_hash IS DISTINCT FROM wanted.bundle_hash AS drifted,
        beat.status, beat.running_bundle_hash
    FROM fleet_agent AS agent JOIN tenancy_environment AS environment ON environment.id = agent.environment_id
        JOIN fleet_heartbeat AS beat ON beat.agent_id = agent.id
        LEFT JOIN fleet_assignment AS wanted ON wanted.agent_id = agent.id
        CROSS JOIN LATERAL (
            SELECT coalesce(beat.last_seen_at, agent.created_at), interval '1 s' * beat.next_heartbeat_s
        ) AS last (seen_at, told)
    WHERE agent.decommissioned_at IS NULL AND agent.id IN (SELECT agent_id FROM looked_at)
) AS found
"""  # noqa: S608  only constants are inserted
# Notes and facts are read from one snapshot: a change that it does not show yet has a note that it does not remove.
_SETTLE = f"""
WITH looked_at AS (
    DELETE FROM fleet_changedagent WHERE id IN (
        SELECT id FROM fleet_changedagent WHERE environment_id = ANY(%s) ORDER BY id LIMIT %s
    ) RETURNING agent_id
), facts AS (
    {_FACTS}
), gone AS (
    DELETE FROM fleet_pulse WHERE agent_id IN (SELECT agent_id FROM looked_at EXCEPT SELECT agent_id FROM facts)
), kept AS (
    INSERT INTO fleet_pulse (agent_id, environment_id, online_until, offline_at, drifted, status, running_bundle_hash)
    SELECT * FROM facts
    ON CONFLICT (agent_id) DO UPDATE SET online_until = excluded.online_until, offline_at = excluded.offline_at,
        drifted = excluded.drifted, status = excluded.status, running_bundle_hash = excluded.running_bundle_hash
)
SELECT count(*) FROM looked_at
"""  # noqa: S608  only constants are inserted
_REFRESH = f"""
WITH looked_at AS (
    SELECT agent_id FROM fleet_pulse
    WHERE environment_id = %s AND agent_id > %s AND offline_at IS NULL
        AND online_until < now() + interval '{REFRESHED_BEFORE_S} s'
    ORDER BY agent_id LIMIT %s
), moved AS (
    UPDATE fleet_pulse AS pulse SET online_until = fresh.online_until, offline_at = fresh.offline_at
    FROM ({_FACTS}) AS fresh
    WHERE pulse.agent_id = fresh.agent_id AND fresh.online_until > pulse.online_until
)
SELECT agent_id FROM looked_at ORDER BY agent_id DESC LIMIT 1
"""  # noqa: S608  only constants are inserted


type Environments = QuerySet[Environment] | Collection[Environment]


@dataclass(frozen=True, slots=True)
class States:
    """How many enrolled agents there are by liveness, how many have drifted, and how many have a suspected clone."""

    liveness: Mapping[str, int]
    drifted: int
    cloned: int


@dataclass(frozen=True, slots=True)
class Groups:
    """How many enrolled agents an environment has by drift, by status, and by the hash of the running bundle."""

    by_drift: Counter[bool]
    status: Mapping[str, int]
    bundles: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of enrolled agents."""
        return self.by_drift.total()


@dataclass(frozen=True, slots=True)
class Counts(States):
    """How many enrolled agents an environment has, in all and by what lists filter by.

    ``bundles`` counts by the hash of the running bundle. ``labels`` has the most frequent values of each key.
    """

    status: Mapping[str, int]
    bundles: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]

    @property
    def total(self) -> int:
        """The number of enrolled agents."""
        return sum(self.liveness.values())


def pulses(environments: Environments) -> QuerySet[Pulse]:
    """Return the pulses of the environments' enrolled agents, with all changes that were committed before."""
    catch_up(environments)
    return Pulse.objects.filter(environment__in=environments)


def catch_up(environments: Environments) -> None:
    """Write the pulses of all changed agents of the environments.

    While the database's disk is almost full, reads must not write. The pulses are then those of the last time.
    """
    if not space.is_low_for_database():
        changed = ChangedAgent.objects.filter(environment__in=environments).order_by()
        settle(*changed.values_list("environment_id", flat=True).distinct())


def settle(*environment_ids: UUID) -> None:
    """Write the pulses of the environments' changed agents. It may run at any time, also twice at once."""
    for some in batched(sorted(environment_ids), LOCKS_AT_ONCE):
        settled = AT_ONCE
        while settled == AT_ONCE:
            settled = _write(_SETTLE, some, list(some), AT_ONCE)


def refresh(environment_id: UUID) -> None:
    """Move the times until which agents are surely online, where heartbeats have come since and the times are near."""
    after: UUID | None = UUID(int=0)
    while after is not None:
        after = _write(_REFRESH, [environment_id], environment_id, after, AT_ONCE)


def maintain() -> None:
    """Settle and refresh all environments, and replace the changes of their counts by their sums."""
    settle(*ChangedAgent.objects.order_by().values_list("environment_id", flat=True).distinct())
    soon = timezone.now() + timedelta(seconds=REFRESHED_BEFORE_S)
    due = Pulse.objects.filter(online_until__lt=soon, offline_at=None)
    for environment_id in due.values_list("environment", flat=True).distinct():
        refresh(environment_id)
    condense()


def _write(sql: str, environment_ids: Collection[UUID], *parameters: Any) -> Any:
    """Run a statement that writes pulses of the environments, after all others. Return the value that it selects."""
    names = [f"fleet_pulse {environment_id}" for environment_id in environment_ids]
    with connection.cursor() as cursor:
        # Sent together, the two are one transaction. The second takes its snapshot when it has the locks: without them,
        # two at once could write an older state over a newer one.
        cursor.execute(f"{_LOCK}; {sql}", [names, *parameters])
        cursor.nextset()
        row = cursor.fetchone()
    return row and row[0]


def has_liveness(liveness: str) -> Q:
    """Return the condition that a pulse's agent has this liveness now."""
    now = timezone.now()
    # Not Exists: PostgreSQL would look up the heartbeats of the whole fleet as soon as one pulse leaves it unknown.
    told = Subquery(Agent.objects.with_state().filter(pk=OuterRef("pk")).values("liveness")[:1])
    by_heartbeat = Q(_unknown(now), Exact(told, Value(liveness)))
    match Liveness(liveness):
        case Liveness.ONLINE:
            return Q(online_until__gte=now) | by_heartbeat
        case Liveness.STALE:
            return Q(online_until__lt=now, offline_at__gte=now) | by_heartbeat
        case Liveness.OFFLINE:
            return Q(offline_at__lt=now) | by_heartbeat


def _unknown(now: datetime, path: str = "") -> Q:
    """Return the condition that only the heartbeat can tell the liveness. The job leaves few such pulses."""
    return Q(**{f"{path}online_until__lt": now, f"{path}offline_at": None})


def is_drained(drained: bool) -> Q:
    """Return the condition that a pulse's agent is drained, or that it is not."""
    return Q(agent__drained_at__isnull=not drained)


def is_cloned(cloned: bool) -> Q:
    """Return the condition that a clone of a pulse's agent is suspected, or that none is."""
    return Q(agent__heartbeat__clone_suspected_at__isnull=not cloned)


def has_progress(progress: str) -> Any:
    """Return the condition that a pulse's agent has come this far with what it was offered."""
    return Exists(Assignment.objects.filter(agent_id=OuterRef("agent_id"), progress=progress))


def agents_with(condition: Q, *, is_rare: bool = False) -> Q:
    """Return the condition that an agent's pulse meets ``condition``. Decommissioned agents have no pulse.

    ``is_rare``: find these pulses first. Otherwise PostgreSQL may look up the pulse of each agent, in the order of a
    list, until the page is full, which it never is if there are few. The limit, higher than any fleet, makes it do so.
    """
    found = Pulse.objects.filter(condition).values("pk")
    return Q(pk__in=found[:1_000_000_000] if is_rare else found)


def cloned_agents() -> Q:
    """Return the condition that a clone of an agent is suspected."""
    return Q(pk__in=Heartbeat.objects.filter(clone_suspected_at__isnull=False).values("pk"))


def count_states(environments: Environments) -> States:
    """Count the enrolled agents of all these environments by liveness, and the drifted and the cloned ones."""
    catch_up(environments)
    counted = PulseCount.objects.filter(environment__in=environments).order_by()
    return states_of(environments, Counter(dict(counted.values_list("drifted").annotate(agents=Sum("count")))))


def states_of(environments: Environments, by_drift: Counter[bool]) -> States:
    """Count only those agents that may not be online. Of all others, ``by_drift`` says how many there are."""
    found, now = Pulse.objects.filter(environment__in=environments).order_by(), timezone.now()
    word = Case(
        When(offline_at__gte=now, then=Value(Liveness.STALE)),
        When(offline_at__lt=now, then=Value(Liveness.OFFLINE)),
        default=Value("unknown"),  # only the heartbeat can tell
    )
    late = found.filter(online_until__lt=now).values_list(word).annotate(agents=Count("*"))
    cloned = found.filter(is_cloned(True)).values_list(Value("cloned")).annotate(agents=Count("*"))
    numbers = Counter[str](dict(late.union(cloned, all=True)))
    clones, unknown = numbers.pop("cloned", 0), numbers.pop("unknown", 0)
    liveness = Counter({each.value: numbers[each] for each in Liveness})
    liveness[Liveness.ONLINE] = max(0, by_drift.total() - liveness.total() - unknown)
    if unknown:
        others = Agent.objects.with_state().filter(_unknown(now, "pulse__"), pulse__environment__in=environments)
        liveness.update(dict(others.order_by().values_list("liveness").annotate(count=Count("*"))))
    return States(liveness, by_drift[True], clones)


def count_groups(environment: Environment) -> Groups:
    """Count the environment's enrolled agents by what does not change with time alone."""
    catch_up([environment])
    by_drift, bundles = Counter[bool](), Counter[str]()
    status = Counter[str](dict.fromkeys(Heartbeat.Status.values, 0))
    counted = PulseCount.objects.filter(environment=environment).order_by()
    groups = counted.values_list("drifted", "status", "running_bundle_hash").annotate(agents=Sum("count"))
    for drifted, word, bundle_hash, agents in groups.exclude(agents=0):
        by_drift[drifted] += agents
        if word is not None:
            status[word] += agents
        if bundle_hash is not None:
            bundles[bundle_hash] += agents
    return Groups(by_drift, status, bundles)


def count(environment: Environment) -> Counts:
    """Count the environment's enrolled agents."""
    groups = count_groups(environment)
    states = states_of([environment], groups.by_drift)
    labels = count_labels(environment)
    return Counts(states.liveness, states.drifted, states.cloned, groups.status, groups.bundles, labels)


def count_running(environment: Environment, bundle_hashes: Collection[str]) -> dict[str, int]:
    """Return how many of the environment's agents run each of these bundles."""
    catch_up([environment])
    counted = PulseCount.objects.filter(environment=environment, running_bundle_hash__in=bundle_hashes).order_by()
    return dict(counted.values_list("running_bundle_hash").annotate(agents=Sum("count")))


def count_labels(environment: Environment) -> dict[str, dict[str, int]]:
    """Return the most frequent keys and of each the most frequent values, with the number of agents that have them."""
    labels: dict[str, dict[str, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_LABELS, [environment.pk, MAX_VALUES, MAX_KEYS])
        for key, value, agents in cursor.fetchall():
            labels.setdefault(key, {})[value] = agents
    return labels


def condense() -> None:
    """Replace the changes of each environment's counts by their sums. The counts stay the same."""
    for model, columns in _COUNTED_BY.items():
        changed = (
            model._default_manager.order_by()
            .values("environment", *columns)
            .annotate(rows=Count("*"))
            .filter(rows__gt=1)
        )
        sql = _CONDENSE.format(table=model._meta.db_table, columns=", ".join(columns))
        for environment_id in set(changed.values_list("environment", flat=True)):
            with connection.cursor() as cursor:
                cursor.execute(sql, [environment_id, environment_id])
