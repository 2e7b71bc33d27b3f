"""Filters and counts over all agents of an environment, read from narrow rows: see ``Pulse`` and ``LabelCount``.

They take about as long for 100,000 agents as for 1,000, because they never read a heartbeat's report, and because each
page of a filtered list reads the rows of its own agents only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Count,
    Exists,
    F,
    OuterRef,
    Q,
    Value,
    When,
)
from django.db.models.lookups import Exact
from django.utils import timezone

from apps.fleet.models import Assignment, ChangedOffer, Heartbeat, LabelCount, Liveness, Pulse
from apps.tenancy.models import Environment

MAX_VALUES = 50  # of a label key in a summary
MAX_KEYS = 200
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
_SUM_LABELS = """
WITH gone AS (DELETE FROM fleet_labelcount WHERE environment_id = %s RETURNING key, value, count)
INSERT INTO fleet_labelcount (environment_id, key, value, count)
SELECT %s, key, value, sum(count) FROM gone GROUP BY key, value HAVING sum(count) <> 0
"""
# A heartbeat removes rows, too. Rows that it holds are skipped: waiting for them while holding others could deadlock.
_DROP_REPEATED = """
WITH repeated AS MATERIALIZED (
    SELECT id FROM fleet_changedoffer AS earlier
    WHERE EXISTS (
        SELECT FROM fleet_changedoffer AS later WHERE later.agent_id = earlier.agent_id AND later.id > earlier.id
    )
    LIMIT %s FOR UPDATE SKIP LOCKED
)
DELETE FROM fleet_changedoffer AS earlier USING repeated WHERE earlier.id = repeated.id
"""
_DROPPED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Counts:
    """How many enrolled agents an environment has, in all and by what lists filter by.

    ``bundles`` counts by the hash of the running bundle. ``labels`` has the most frequent values of each key.
    """

    total: int
    liveness: Mapping[str, int]
    drifted: int
    cloned: int
    status: Mapping[str, int]
    bundles: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]


def has_liveness(liveness: str) -> Q:
    """Return the condition that a pulse's agent has this liveness now, by the rule of ``AgentQuerySet.with_state``."""
    now = timezone.now()
    match Liveness(liveness):
        case Liveness.ONLINE:
            return Q(stale_at__gte=now)
        case Liveness.STALE:
            return Q(stale_at__lt=now, offline_at__gte=now)
        case Liveness.OFFLINE:
            return Q(offline_at__lt=now)


def _drifts() -> Any:
    """Return whether a pulse's agent runs something else than it should: the pulse's flag, unless the offer changed."""
    of_agent = {"agent_id": OuterRef("agent_id")}
    as_it_should = Q(bundle_hash=None) | Q(bundle_hash=OuterRef("running_bundle_hash"))
    return Case(
        When(
            Exists(ChangedOffer.objects.filter(**of_agent)),
            then=~Exists(Assignment.objects.filter(as_it_should, **of_agent)),
        ),
        default=F("drifted"),
        output_field=BooleanField(),
    )


def has_drifted(drifted: bool = True) -> Any:
    """Return the condition that a pulse's agent runs something else than it should, or that it does not."""
    return Exact(_drifts(), drifted)


def has_progress(progress: str) -> Any:
    """Return the condition that a pulse's agent has come this far with what it was offered."""
    return Exists(Assignment.objects.filter(agent_id=OuterRef("agent_id"), progress=progress))


def count(environment: Environment) -> Counts:
    """Count the environment's enrolled agents, in two queries."""
    agents = Pulse.objects.filter(environment=environment)
    liveness = Counter[str](dict.fromkeys(Liveness, 0))
    status, bundles = Counter[str](dict.fromkeys(Heartbeat.Status.values, 0)), Counter[str]()
    groups = agents.values(
        "status",
        "running_bundle_hash",
        drifts=_drifts(),
        liveness=Case(
            *(When(has_liveness(each), then=Value(each)) for each in (Liveness.ONLINE, Liveness.STALE)),
            default=Value(Liveness.OFFLINE),
            output_field=CharField(),
        ),
    ).annotate(count=Count("*"))
    drifted = 0
    for group in groups.order_by():
        liveness[group["liveness"]] += group["count"]
        drifted += group["count"] if group["drifts"] else 0
        if group["status"] is not None:
            status[group["status"]] += group["count"]
        if group["running_bundle_hash"] is not None:
            bundles[group["running_bundle_hash"]] += group["count"]
    cloned = 0  # no agent is marked as a clone yet
    return Counts(liveness.total(), liveness, drifted, cloned, status, bundles, _count_labels(environment))


def _count_labels(environment: Environment) -> dict[str, dict[str, int]]:
    """Return the most frequent keys and of each the most frequent values, with the number of agents that have them."""
    labels: dict[str, dict[str, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_LABELS, [environment.pk, MAX_VALUES, MAX_KEYS])
        for key, value, agents in cursor.fetchall():
            labels.setdefault(key, {})[value] = agents
    return labels


def condense() -> None:
    """Replace the changes of each environment's label counts by their sums, and drop repeated changes of an offer.

    It may run at any time, also twice at once. It waits for no heartbeat, and the counts stay the same.
    """
    with connection.cursor() as cursor:
        dropped = _DROPPED_AT_ONCE
        while dropped == _DROPPED_AT_ONCE:
            cursor.execute(_DROP_REPEATED, [_DROPPED_AT_ONCE])
            dropped = cursor.rowcount
    changed = LabelCount.objects.values("environment", "key", "value").annotate(rows=Count("*")).filter(rows__gt=1)
    for environment_id in set(changed.values_list("environment", flat=True)):
        with connection.cursor() as cursor:
            cursor.execute(_SUM_LABELS, [environment_id, environment_id])
