"""Filters and counts of agents, and the updates of the narrow rows that they read.

With the narrow rows (``Pulse``, ``PulseCount`` and ``LabelCount``), filters and counts rarely read the wide rows of
heartbeats, so they are fast for 100,000 agents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import batched
from typing import Any
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Count,
    DateTimeField,
    Exists,
    F,
    Func,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Cast
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

# The limits of ``count_labels``: values per key, and keys. ``MAX_VALUES`` is also the default limit of the functions
# ``find_label_keys`` and ``find_label_values``.
MAX_VALUES, MAX_KEYS = 50, 200
BATCH_SIZE = 5000  # the maximum number of ``ChangedAgent`` rows, or of pulses, per statement
LOCK_BATCH = 100  # environments that are locked together, in the order of their ids
# Pulses are refreshed from this many seconds before ``online_until``. Must be at least twice the interval of the job.
REFRESHED_BEFORE_S = 15
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
# Computes the pulses of the agents in ``checked``. The interval that an agent was given is at least 0.9 times the
# configured one, and an agent is stale after three such intervals. ``online_until`` is earlier, to leave a margin for
# heartbeats that are stored while the setting changes. For silent agents, see the trigger ``fleet_heartbeat_note``.
_FACTS = f"""
SELECT agent_id, environment_id,
    CASE WHEN silent THEN seen_at + {STALE_AFTER} * given
        ELSE seen_at + {0.8 * STALE_AFTER:g} * least(given, configured) END AS online_until,
    CASE WHEN silent THEN seen_at + {OFFLINE_AFTER} * given END AS offline_at,
    drifted, status, running_bundle_hash
FROM (
    SELECT agent.id AS agent_id, agent.environment_id, seen_at, given, now() > seen_at + 2.5 * given AS silent,
        interval '1 s' * coalesce(
            (environment.settings->>'heartbeat_interval_s')::float8, {DEFAULT_HEARTBEAT_INTERVAL_S}
        ) AS configured,
        assigned.bundle_hash IS NOT NULL AND beat.running_bundle_hash IS DISTINCT FROM assigned.bundle_hash AS drifted,
        beat.status, beat.running_bundle_hash
    FROM fleet_agent AS agent JOIN tenancy_environment AS environment ON environment.id = agent.environment_id
        JOIN fleet_heartbeat AS beat ON beat.agent_id = agent.id
        LEFT JOIN fleet_assignment AS assigned ON assigned.agent_id = agent.id
        CROSS JOIN LATERAL (
            SELECT coalesce(beat.last_seen_at, agent.created_at), interval '1 s' * beat.next_heartbeat_s
        ) AS last (seen_at, given)
    WHERE agent.decommissioned_at IS NULL AND agent.id IN (SELECT agent_id FROM checked)
) AS found
"""  # noqa: S608  only constants are inserted
# The notes of changes (``ChangedAgent``) and the facts are read from one snapshot. The notes of later changes remain.
_SETTLE = f"""
WITH checked AS (
    DELETE FROM fleet_changedagent WHERE id IN (
        SELECT id FROM fleet_changedagent WHERE environment_id = ANY(%s) ORDER BY id LIMIT %s
    ) RETURNING agent_id
), facts AS (
    {_FACTS}
), gone AS (
    DELETE FROM fleet_pulse WHERE agent_id IN (SELECT agent_id FROM checked EXCEPT SELECT agent_id FROM facts)
), kept AS (
    INSERT INTO fleet_pulse (agent_id, environment_id, online_until, offline_at, drifted, status, running_bundle_hash)
    SELECT * FROM facts
    ON CONFLICT (agent_id) DO UPDATE SET online_until = excluded.online_until, offline_at = excluded.offline_at,
        drifted = excluded.drifted, status = excluded.status, running_bundle_hash = excluded.running_bundle_hash
)
SELECT count(*) FROM checked
"""  # noqa: S608  only constants are inserted
_REFRESH = f"""
WITH checked AS (
    SELECT agent_id FROM fleet_pulse
    WHERE environment_id = %s AND agent_id > %s AND offline_at IS NULL
        AND online_until < now() + interval '{REFRESHED_BEFORE_S} s'
    ORDER BY agent_id LIMIT %s
), moved AS (
    UPDATE fleet_pulse AS pulse SET online_until = fresh.online_until, offline_at = fresh.offline_at
    FROM ({_FACTS}) AS fresh
    WHERE pulse.agent_id = fresh.agent_id AND fresh.online_until > pulse.online_until
)
SELECT agent_id FROM checked ORDER BY agent_id DESC LIMIT 1
"""  # noqa: S608  only constants are inserted


type Environments = QuerySet[Environment] | Collection[Environment]


@dataclass(frozen=True, slots=True)
class States:
    """The numbers of enrolled agents by liveness, of drifted agents, and of agents with a suspected clone."""

    liveness: Mapping[str, int]
    drifted: int
    cloned: int


@dataclass(frozen=True, slots=True)
class Groups:
    """The numbers of an environment's enrolled agents by drift, by status, and by the hash of the running bundle."""

    by_drift: Counter[bool]
    status: Mapping[str, int]
    bundles: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of enrolled agents."""
        return self.by_drift.total()


@dataclass(frozen=True, slots=True)
class Fleet:
    """The numbers of one environment's enrolled agents by drift, liveness, status and hash of the running bundle.

    Agents that have no status, or run no bundle, are counted under an empty text. ``offline_since`` is when the first
    of the agents that are offline became offline, and ``cloned_since`` when the first clone was suspected. Each is None
    if there is no such agent or the time is unknown.
    """

    by_drift: Counter[bool] = field(default_factory=Counter)
    liveness: Counter[str] = field(default_factory=Counter)
    status: Counter[str] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    cloned: int = 0
    offline_since: datetime | None = None
    cloned_since: datetime | None = None

    @property
    def total(self) -> int:
        """The number of enrolled agents."""
        return self.by_drift.total()


@dataclass(frozen=True, slots=True)
class Counts(States):
    """The numbers of an environment's enrolled agents, in total and by state, status, running bundle and label.

    ``bundles`` counts by the hash of the running bundle. ``labels`` contains only the most frequent keys and values.
    """

    status: Mapping[str, int]
    bundles: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]

    @property
    def total(self) -> int:
        """The number of enrolled agents."""
        return sum(self.liveness.values())


def pulses(environments: Environments) -> QuerySet[Pulse]:
    """Return the pulses of the environments' enrolled agents, after ``catch_up`` has updated them."""
    catch_up(environments)
    return Pulse.objects.filter(environment__in=environments)


def catch_up(environments: Environments) -> None:
    """Update the pulses of all changed agents of the environments.

    While the database's disk is almost full, reads must not write, so the pulses may be out of date.
    """
    if not space.is_low_for_database():
        changed = ChangedAgent.objects.filter(environment__in=environments).order_by()
        settle(*changed.values_list("environment_id", flat=True).distinct())


def has_changes() -> Exists:
    """Return the condition that the pulses of an environment may be out of date (see ``settle_if_possible``)."""
    return Exists(ChangedAgent.objects.filter(environment=OuterRef("pk")))


def settle_if_possible(environment_ids: Collection[UUID]) -> None:
    """Do what ``catch_up`` does, for environments of which the caller knows that they have changed agents."""
    if environment_ids and not space.is_low_for_database():
        settle(*environment_ids)


def settle(*environment_ids: UUID) -> None:
    """Update the pulses of the environments' changed agents. Safe to run concurrently."""
    for some in batched(sorted(environment_ids), LOCK_BATCH):
        settled = BATCH_SIZE
        while settled == BATCH_SIZE:
            settled = _write(_SETTLE, some, list(some), BATCH_SIZE)


def refresh(environment_id: UUID) -> None:
    """Recompute the times of the environment's pulses whose ``online_until`` has passed or passes soon.

    Pulses with ``offline_at`` are left out: their agents were already known to be silent.
    """
    after: UUID | None = UUID(int=0)
    while after is not None:
        after = _write(_REFRESH, [environment_id], environment_id, after, BATCH_SIZE)


def maintain() -> None:
    """Settle and refresh the pulses of all environments, and condense all counts."""
    settle(*ChangedAgent.objects.order_by().values_list("environment_id", flat=True).distinct())
    soon = timezone.now() + timedelta(seconds=REFRESHED_BEFORE_S)
    due = Pulse.objects.filter(online_until__lt=soon, offline_at=None)
    for environment_id in due.values_list("environment", flat=True).distinct():
        refresh(environment_id)
    condense()


def _write(sql: str, environment_ids: Collection[UUID], *parameters: Any) -> Any:
    """Run a statement that writes pulses while their environments are locked. Returns the selected value, or None."""
    names = [f"fleet_pulse {environment_id}" for environment_id in environment_ids]
    with connection.cursor() as cursor:
        # Sent together, the two statements are one transaction. The second takes its snapshot after the locks are held.
        # Without the locks, concurrent statements could overwrite a newer state with an older one.
        cursor.execute(f"{_LOCK}; {sql}", [names, *parameters])
        cursor.nextset()
        row = cursor.fetchone()
    return row and row[0]


def has_liveness(liveness: str) -> Q:
    """Return the condition that a pulse's agent has this liveness at present."""
    now = timezone.now()
    # With Exists, PostgreSQL would look up the heartbeats of the whole fleet as soon as one pulse is undecided.
    by_pk = Subquery(Agent.objects.with_state().filter(pk=OuterRef("pk")).values("liveness")[:1])
    by_heartbeat = Q(_is_undecided(now), Exact(by_pk, Value(liveness)))
    match Liveness(liveness):
        case Liveness.ONLINE:
            return Q(online_until__gte=now) | by_heartbeat
        case Liveness.STALE:
            return Q(online_until__lt=now, offline_at__gte=now) | by_heartbeat
        case Liveness.OFFLINE:
            return Q(offline_at__lt=now) | by_heartbeat


def _is_undecided(now: datetime, path: str = "") -> Q:
    """Return the condition that a pulse does not show its agent's liveness, so that the heartbeat must be read.

    The job ``fleet.settle`` keeps the number of such pulses low. ``path`` leads from the filtered model to the pulse.
    """
    return Q(**{f"{path}online_until__lt": now, f"{path}offline_at": None})


def is_drained(drained: bool) -> Q:
    """Return the condition that a pulse's agent is, or is not, drained."""
    return Q(agent__drained_at__isnull=not drained)


def is_cloned(cloned: bool) -> Q:
    """Return the condition that a clone of a pulse's agent is, or is not, suspected."""
    return Q(agent__heartbeat__clone_suspected_at__isnull=not cloned)


def has_progress(progress: str) -> Any:
    """Return the condition that the assignment of a pulse's agent has this progress."""
    return Exists(Assignment.objects.filter(agent_id=OuterRef("agent_id"), progress=progress))


def agents_with(condition: Q, *, is_rare: bool = False) -> Q:
    """Return the condition that an agent's pulse meets ``condition``. Decommissioned agents have no pulse.

    Set ``is_rare`` if few pulses meet the condition. PostgreSQL then finds these pulses first, and looks up their
    agents in the order of the list. Otherwise it may look up the pulse of each agent until a page is full.
    """
    found = Pulse.objects.filter(condition).values("pk")
    return Q(_IsAnyOf("pk", ArraySubquery(found))) if is_rare else Q(pk__in=found)


class _IsAnyOf(Func):
    """The condition that a value is in an array."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY("
    output_field = BooleanField()


def cloned_agents() -> Q:
    """Return the condition that a clone of the agent is suspected."""
    return Q(pk__in=Heartbeat.objects.filter(clone_suspected_at__isnull=False).values("pk"))


def count_states(environments: Environments) -> States:
    """Count the environments' enrolled agents by liveness, and those that drifted or have a suspected clone."""
    catch_up(environments)
    counted = PulseCount.objects.filter(environment__in=environments).order_by()
    return states_of(environments, Counter(dict(counted.values_list("drifted").annotate(agents=Sum("count")))))


def states_of(environments: Environments, by_drift: Counter[bool]) -> States:
    """Count the environments' enrolled agents by state. ``by_drift`` must contain the numbers of all of them."""
    found, now = Pulse.objects.filter(environment__in=environments).order_by(), timezone.now()
    word = Case(
        When(offline_at__gte=now, then=Value(Liveness.STALE)),
        When(offline_at__lt=now, then=Value(Liveness.OFFLINE)),
        default=Value("unknown"),  # only the heartbeat shows the liveness
    )
    late = found.filter(online_until__lt=now).values_list(word).annotate(agents=Count("*"))
    cloned = found.filter(is_cloned(True)).values_list(Value("cloned")).annotate(agents=Count("*"))
    numbers = Counter[str](dict(late.union(cloned, all=True)))
    clones, unknown = numbers.pop("cloned", 0), numbers.pop("unknown", 0)
    liveness = Counter({each.value: numbers[each] for each in Liveness})
    liveness[Liveness.ONLINE] = max(0, by_drift.total() - liveness.total() - unknown)
    if unknown:
        others = Agent.objects.with_state().filter(_is_undecided(now, "pulse__"), pulse__environment__in=environments)
        liveness.update(dict(others.order_by().values_list("liveness").annotate(count=Count("*"))))
    return States(liveness, by_drift[True], clones)


def count_by_environment(environments: Environments) -> dict[UUID, Fleet]:
    """Count the enrolled agents of each environment. Environments without agents may be missing.

    Does not update the pulses first (see ``has_changes``).
    """
    now, pulses_of = timezone.now(), Pulse.objects.filter(environment__in=environments).order_by()
    is_late = Case(When(offline_at__gte=now, then=Value(Liveness.STALE)), default=Value(Liveness.OFFLINE))
    late = pulses_of.filter(online_until__lt=now, offline_at__isnull=False)
    others = Agent.objects.with_state().filter(_is_undecided(now, "pulse__"), pulse__environment__in=environments)
    counted, cloned = (
        PulseCount.objects.filter(environment__in=environments).order_by(),
        pulses_of.filter(is_cloned(True)),
    )
    parts = [
        (counted, Value("counted"), "status", "running_bundle_hash", "drifted", Sum("count"), None),
        (late, is_late, None, None, None, Count("*"), Min("offline_at")),
        (others.order_by(), F("liveness"), None, None, None, Count("*"), None),
        (cloned, Value("cloned"), None, None, None, Count("*"), Min("agent__heartbeat__clone_suspected_at")),
    ]
    first, *rest = (_counted(*part) for part in parts)
    found: dict[UUID, Fleet] = {}
    for environment_id, word, status, bundle_hash, drifted, number, since in first.union(*rest, all=True):
        fleet = found.setdefault(environment_id, Fleet())
        if word == "cloned":
            found[environment_id] = replace(fleet, cloned=number, cloned_since=since)
        elif word != "counted":
            fleet.liveness[word] += number
            if word == Liveness.OFFLINE and since is not None:
                found[environment_id] = replace(fleet, offline_since=since)
        elif number:
            fleet.by_drift[drifted] += number
            fleet.status[status or ""] += number
            fleet.bundles[bundle_hash or ""] += number
    for fleet in found.values():
        late_or_offline = fleet.liveness[Liveness.STALE] + fleet.liveness[Liveness.OFFLINE]
        fleet.liveness[Liveness.ONLINE] = max(0, fleet.total - late_or_offline)
    return found


def _counted(
    rows: QuerySet[Any], word: Any, status: str | None, bundle: str | None, drifted: str | None, number: Any, since: Any
) -> QuerySet[Any, Any]:
    """Return one part of the query of ``count_by_environment``, with the columns that all parts have."""
    part: QuerySet[Any, Any] = rows.values_list(
        F("environment_id"),
        Cast(word, CharField()),
        F(status) if status else Cast(Value(None), CharField()),
        F(bundle) if bundle else Cast(Value(None), CharField()),
        F(drifted) if drifted else Cast(Value(None), BooleanField()),
    ).annotate(number=number, since=since or Cast(Value(None), DateTimeField()))
    return part


def count_groups(environment: Environment) -> Groups:
    """Count the environment's enrolled agents by drift, status and running bundle."""
    catch_up([environment])
    return sum_groups(PulseCount.objects.filter(environment=environment))


def sum_groups(counted: QuerySet[PulseCount]) -> Groups:
    """Sum the counts of one environment by drift, status and running bundle, without updating them first."""
    by_drift, bundles = Counter[bool](), Counter[str]()
    status = Counter[str](dict.fromkeys(Heartbeat.Status.values, 0))
    groups = counted.order_by().values_list("drifted", "status", "running_bundle_hash").annotate(agents=Sum("count"))
    for drifted, word, bundle_hash, agents in groups.exclude(agents=0):
        by_drift[drifted] += agents
        if word is not None:
            status[word] += agents
        if bundle_hash is not None:
            bundles[bundle_hash] += agents
    return Groups(by_drift, status, bundles)


def count(environment: Environment) -> Counts:
    """Count the environment's enrolled agents by state, status, running bundle and label."""
    groups = count_groups(environment)
    states = states_of([environment], groups.by_drift)
    labels = count_labels(environment)
    return Counts(states.liveness, states.drifted, states.cloned, groups.status, groups.bundles, labels)


def count_running(environment: Environment, bundle_hashes: Collection[str]) -> dict[str, int]:
    """Return the number of the environment's agents that run each of these bundles, by bundle hash.

    Bundles that no agent runs may be missing.
    """
    catch_up([environment])
    counted = PulseCount.objects.filter(environment=environment, running_bundle_hash__in=bundle_hashes).order_by()
    return dict(counted.values_list("running_bundle_hash").annotate(agents=Sum("count")))


def running_bundles(environment: Environment, agents: QuerySet[Agent]) -> QuerySet[Any, tuple[str, int]]:
    """Return how many of these agents run each bundle, as rows of a bundle hash and a number.

    A bundle may have two rows. The query writes no pulses, so it may run while the environment is locked.
    """
    changed = ChangedAgent.objects.filter(environment=environment).values("agent")
    settled = Pulse.objects.filter(environment=environment, agent__in=agents.order_by()).exclude(agent__in=changed)
    others = Heartbeat.objects.filter(Q(agent__in=changed), agent__in=agents.order_by())
    counts = [
        each.exclude(running_bundle_hash=None).order_by().values_list("running_bundle_hash").annotate(Count("pk"))
        for each in (settled, others)
    ]
    return counts[0].union(counts[1], all=True)


def count_labels(environment: Environment) -> dict[str, dict[str, int]]:
    """Return the number of agents by label key and value, for the most frequent keys and values."""
    labels: dict[str, dict[str, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_LABELS, [environment.pk, MAX_VALUES, MAX_KEYS])
        for key, value, agents in cursor.fetchall():
            labels.setdefault(key, {})[value] = agents
    return labels


def find_label_keys(environments: Environments, start: str = "", *, limit: int = MAX_VALUES) -> dict[str, int]:
    """Return the most frequent label keys that begin with ``start``, and their numbers of agents. Ignores case."""
    return _largest_counts(
        LabelCount.objects.filter(environment__in=environments, key__istartswith=start), "key", limit
    )


def find_label_values(
    environments: Environments, key: str, start: str = "", *, limit: int = MAX_VALUES
) -> dict[str, int]:
    """Return a label's most frequent values that begin with ``start``, and their numbers of agents.

    Ignores the case of ``start``, but not of ``key``.
    """
    found = LabelCount.objects.filter(environment__in=environments, key=key, value__istartswith=start)
    return _largest_counts(found, "value", limit)


def _largest_counts(counts: QuerySet[LabelCount], column: str, limit: int) -> dict[str, int]:
    summed = counts.order_by().values_list(column).annotate(agents=Sum("count")).filter(agents__gt=0)
    return dict(summed.order_by("-agents", column)[:limit])


def condense() -> None:
    """Replace the rows of each count with one row that contains their sum, or with none if the sum is 0."""
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
