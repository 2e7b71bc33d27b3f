"""Series: the values that heartbeats report, in slots of 15 minutes, for each agent and summed for each environment.

Each heartbeat adds its values to the agent's ``Heartbeat`` row, which it writes anyway. A usual heartbeat changes only
the first four columns below. If the slot, the process, the deployment or the set of reported values has changed, or a
counter or the uptime is lower than before, the trigger ``fleet_gather_series`` (in the migration ``triggers``) changes
the other columns as well:

- ``series_slot`` is the number of the last heartbeat's slot: the slot's Unix time divided by 900.
- ``series_read`` are the values of the last heartbeat, see ``readings``. If the trigger ignored them,
  because the heartbeat was late or came from an earlier process, they are null, and the number with the bits is -1.
- ``series_changed`` is whether the last heartbeat met the condition of the trigger.
- ``series_recent`` are the sum of the CPU readings, the sum of the memory readings, and the number of heartbeats,
  beginning with the heartbeat at which the trigger last ran. A heartbeat that the trigger ignored is not counted.
- ``series_sums`` is the open slot as of the trigger's last run: the slot's number, the increases of the four counters,
  the sum and the number of the CPU readings, the sum and the number of the memory readings, and the restarts.
- ``series_last`` are the counters and the uptime as of the trigger's last run. A usual heartbeat's counters are added
  as differences from these.
- ``series_closed`` are the earlier slots that have not been written, each with the ten elements of ``series_sums``.
  There is at most one, unless the job is late. Slots older than 90 days are dropped.
- ``series_boots`` are the boot ids of the agent's latest four processes, newest first. Only the newest process adds to
  the series.
- ``series_deployment_id`` is the deployment to which the counters belong.

The job moves each closed slot into the rows of ``AgentSeries`` and ``EnvironmentSeries`` in one transaction, so no slot
is lost or written twice. It also moves an open slot that is over. Then ``series_slot`` and ``series_sums`` become null,
and ``series_last`` become the last known values. ``read_agent`` adds the slots that have not been written, and
``read_environments`` does so unless the environments are large.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from apps.fleet.models import Agent, AgentSeries, EnvironmentSeries
from apps.tenancy.models import Environment
from apps.tenancy.services.state import keep_environments
from byteor_cloud.database.deletion import delete_in_batches

SLOT_S = 900
SLOTS_PER_DAY = 96
SERIES_KEPT_FOR = timedelta(days=90)
COUNTERS = ("records_in", "records_out", "drops", "errors")
VALUES = (*COUNTERS, "cpu_percent", "memory_bytes", "restarts", "online")
"""The values of a slot, in the order of the columns of ``AgentSeries`` and ``EnvironmentSeries``."""
MAX_SLOTS = SLOTS_PER_DAY * SERIES_KEPT_FOR.days
_LARGEST = 2**53 - 1  # JSON parsers that use doubles read every integer up to this exactly
_MOST_PERCENT = 1e6
# How many agents' slots one transaction moves. The heartbeats of these agents wait until the transaction ends.
_BATCH = 250
# The sums of larger environments are read without the slots that have not been written, since these are in the agents'
# rows. The job starts a minute after a slot ends. The slot is returned four minutes later: the job should be done then.
MOST_AGENTS_READ = 1_000
_WRITTEN_AFTER = timedelta(minutes=5)

# -- gathering -------------------------------------------------------------------------------------------------------


def readings(report: Mapping[str, Any], boot_id: str | None) -> list[float | None]:
    """Return the values of a heartbeat that belong to series.

    These are the four counters, the uptime, the CPU percentage, the memory, and a number whose bits say what is known:
    bit 0 is for the boot id, bits 1 to 4 are for the counters, bit 6 for the CPU percentage and bit 7 for the memory. A
    value that is not a number, is negative or is too large becomes None, as does a counter that is not an integer.
    """
    pipeline, resources = report.get("pipeline") or {}, report.get("resources") or {}
    found: list[float | None] = [_read(pipeline.get(name), _LARGEST, whole=True) for name in COUNTERS]
    found += [
        _read(report.get("uptime_s"), _LARGEST),
        _read(resources.get("cpu_percent"), _MOST_PERCENT),
        _read(resources.get("memory_bytes"), _LARGEST),
    ]
    flags = 0 if boot_id is None else 1
    for place in (0, 1, 2, 3, 5, 6):
        if found[place] is not None:
            flags |= 2 << place
    found.append(flags)
    return found


def _read(value: Any, most: float, *, whole: bool = False) -> float | None:
    if type(value) is float:
        return value if 0 <= value <= most and not (whole and not value.is_integer()) else None
    return value if type(value) is int and 0 <= value <= most else None


# -- writing ---------------------------------------------------------------------------------------------------------

_CURRENT_SLOT = f"SELECT floor(date_part('epoch', now()) / {SLOT_S})::int"
_DUE = "(h.series_closed IS NOT NULL OR h.series_sums IS NOT NULL AND h.series_slot < %(slot)s)"
_FIND = f"""
SELECT h.agent_id, a.environment_id FROM fleet_heartbeat h JOIN fleet_agent a ON a.id = h.agent_id
WHERE h.agent_id > %(after)s AND a.id > %(after)s AND {_DUE} ORDER BY h.agent_id LIMIT {_BATCH}
"""  # noqa: S608  built from constants
# The open slot of an agent that has sent no heartbeat since the slot ended is taken as well. What the agent reported
# last is kept in ``series_last``, so that its next heartbeat adds only the difference.
_TAKE = f"""
WITH taken AS (
    SELECT h.agent_id, a.environment_id, h.series_closed, coalesce(h.series_slot < %(slot)s, false) AS is_over,
        h.series_sums, h.series_last, h.series_read, h.series_recent
    FROM fleet_heartbeat h JOIN fleet_agent a ON a.id = h.agent_id
    WHERE h.agent_id = ANY(%(agents)s) AND {_DUE} ORDER BY h.agent_id FOR NO KEY UPDATE OF h
)
UPDATE fleet_heartbeat h
SET series_closed = NULL,
    series_slot = CASE WHEN NOT is_over THEN h.series_slot END,
    series_sums = CASE WHEN NOT is_over THEN h.series_sums END,
    series_last = CASE WHEN is_over THEN ARRAY[
        coalesce(h.series_read[1], h.series_last[1]), coalesce(h.series_read[2], h.series_last[2]),
        coalesce(h.series_read[3], h.series_last[3]), coalesce(h.series_read[4], h.series_last[4]),
        coalesce(h.series_read[5], h.series_last[5])] ELSE h.series_last END
FROM taken WHERE h.agent_id = taken.agent_id
RETURNING taken.agent_id, taken.environment_id, taken.series_closed,
    CASE WHEN is_over THEN taken.series_sums END, taken.series_last, taken.series_read, taken.series_recent
"""  # noqa: S608  built from constants
_REPLACED = frozenset({"cpu_percent", "memory_bytes", "online"})  # the values of an agent that cannot be added up


def _upsert(table: str, owner: str, replaced: frozenset[str]) -> str:
    """Return the statement that adds one slot to the rows of a day.

    If the slot already has values, new values are added to them. Values whose names are in ``replaced`` are replaced.
    """
    columns = ", ".join(VALUES)
    inserted = ", ".join(f"array_fill(NULL::float8, ARRAY[%(place)s - 1]) || b.{name}" for name in VALUES)
    updated = ", ".join(
        f"{name}[%(place)s] = coalesce("
        + ("" if name in replaced else f"s.{name}[%(place)s] + excluded.{name}[%(place)s], ")
        + f"excluded.{name}[%(place)s], s.{name}[%(place)s])"
        for name in VALUES
    )
    return f"""
        INSERT INTO {table} AS s ({owner}, day, {columns})
        SELECT b.owner, %(day)s, {inserted}
        FROM json_to_recordset(%(rows)s::json) AS b (owner uuid, {", ".join(f"{name} float8" for name in VALUES)})
        ORDER BY b.owner
        ON CONFLICT ({owner}, day) DO UPDATE SET {updated}
    """  # noqa: S608  built from constants


_UPSERT_AGENTS = _upsert("fleet_agentseries", "agent_id", _REPLACED)
_UPSERT_ENVIRONMENTS = _upsert("fleet_environmentseries", "environment_id", frozenset())


def write_closed_slots() -> int:
    """Move all slots that have ended from the agents' heartbeats into the series. Returns the number of agents."""
    after, moved = UUID(int=0), 0
    with connection.cursor() as cursor:
        cursor.execute(_CURRENT_SLOT)
        (slot,) = cursor.fetchone()
    while found := _move_batch(slot, after):
        after, moved = found[-1], moved + len(found)
    return moved


@transaction.atomic
def _move_batch(slot: int, after: UUID) -> list[UUID]:
    """Move the ended slots of the next agents by id. Returns the agents' ids."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND, {"slot": slot, "after": after})
        due = cursor.fetchall()
        keep_environments(*{environment for _, environment in due})
        agents = [agent for agent, _ in due]
        cursor.execute(_TAKE, {"slot": slot, "agents": agents})
        of_agents: dict[int, dict[UUID, Slot]] = defaultdict(dict)
        of_environments: dict[int, dict[UUID, Slot]] = defaultdict(dict)
        for agent, environment, closed, *state in cursor.fetchall():
            for number, values in _unwritten(closed and json.loads(closed), *state):
                of_agents[number][agent] = _merged(of_agents[number].get(agent), values, _REPLACED)
                of_environments[number][environment] = _merged(of_environments[number].get(environment), values)
        oldest = slot - MAX_SLOTS
        for statement, by_slot in ((_UPSERT_AGENTS, of_agents), (_UPSERT_ENVIRONMENTS, of_environments)):
            for number in sorted(by_slot):
                if number > oldest:  # older slots are never read
                    day, place = _day(number), number % SLOTS_PER_DAY + 1
                    rows = [{"owner": str(owner), **dict(zip(VALUES, values, strict=True))}
                            for owner, values in by_slot[number].items()]  # fmt: skip
                    cursor.execute(statement, {"day": day, "place": place, "rows": json.dumps(rows)})
    return agents


def delete_old_series(now: datetime | None = None) -> int:
    """Delete the days of series that are older than 90 days. Returns their number."""
    oldest = (now or timezone.now()).astimezone(UTC).date() - SERIES_KEPT_FOR
    return sum(delete_in_batches(model.objects.filter(day__lt=oldest)) for model in (AgentSeries, EnvironmentSeries))


# -- slots -----------------------------------------------------------------------------------------------------------

type Slot = Sequence[float | None]
"""A row of numbers: the values of a slot in the order of ``VALUES``, or an array of a heartbeat row."""


def _day(slot: int) -> date:
    return datetime.fromtimestamp(slot * SLOT_S, UTC).date()


def _unwritten(
    closed: Sequence[Slot] | None, sums: Slot | None, last: Slot | None, read: Slot | None, recent: Slot | None
) -> Iterator[tuple[int, Slot]]:
    """Yield the number and values of each unwritten slot in a heartbeat row: the closed slots, then the open one."""
    yield from map(_values, closed or ())
    if sums is not None and last is not None and read is not None and recent is not None:
        whole = list(sums)
        for place in range(4):
            if (value := read[place]) is not None:
                whole[place + 1] = (sums[place + 1] or 0) + value - (last[place] or 0)
        for place in range(2):
            if (value := recent[place]) is not None:
                whole[2 * place + 5] = (sums[2 * place + 5] or 0) + value
                whole[2 * place + 6] = (sums[2 * place + 6] or 0) + (recent[2] or 0)
        yield _values(whole)


def _values(gathered: Slot) -> tuple[int, Slot]:
    """Return the number and the values of a slot that heartbeats gathered. The CPU and memory readings become means."""
    number, *counters, cpu_sum, cpu_count, memory_sum, memory_count, restarts = gathered
    cpu = cpu_sum / cpu_count if cpu_sum is not None and cpu_count else None
    memory = memory_sum / memory_count if memory_sum is not None and memory_count else None
    return int(number or 0), [*counters, cpu, memory, restarts, 1]


def _merged(before: Slot | None, added: Slot, replaced: frozenset[str] = frozenset()) -> Slot:
    """Return the sums of two slots' values, like ``_upsert``. An unknown value counts as 0 unless both are unknown.

    For the names in ``replaced``, return the newer known value instead.
    """
    if before is None:
        return added
    return [
        more if one is None else one if more is None else more if name in replaced else one + more
        for name, one, more in zip(VALUES, before, added, strict=True)
    ]


# -- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """The values of the slot that starts at ``at``. If no heartbeat contributed to a value, it is None.

    ``online`` is the number of agents that sent a heartbeat in the slot, and never None.
    """

    at: datetime
    records_in: int | None = None
    records_out: int | None = None
    drops: int | None = None
    errors: int | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    restarts: int | None = None
    online: int = 0


_WRITTEN = f"day, NULL::jsonb, {', '.join(VALUES)}"
_NOT_WRITTEN = "NULL, series_closed, series_sums, series_last, series_read, series_recent, NULL, NULL, NULL, NULL"
# ``_READ_AGENT`` and ``_READ_SMALL_ENVIRONMENTS`` read the written and the unwritten slots in one snapshot. Between two
# statements, the job could move a slot.
_READ_AGENT = f"""
SELECT {_WRITTEN} FROM fleet_agentseries WHERE agent_id = %(id)s AND day BETWEEN %(from)s AND %(to)s
UNION ALL SELECT {_NOT_WRITTEN} FROM fleet_heartbeat WHERE agent_id = %(id)s
"""  # noqa: S608  built from constants
# The database sums several environments, and returns the slots of each day as arrays.
_SUMMED = ", ".join(f"array_agg({name} ORDER BY place)" for name in VALUES)
_READ_ENVIRONMENTS = f"""
SELECT day, NULL::jsonb, {_SUMMED} FROM (
    SELECT day, place, {", ".join(f"sum(slot.{name}) AS {name}" for name in VALUES)}
    FROM fleet_environmentseries AS s,
        unnest({", ".join(f"s.{name}" for name in VALUES)}) WITH ORDINALITY AS slot ({", ".join(VALUES)}, place)
    WHERE environment_id = ANY(%(id)s) AND day BETWEEN %(from)s AND %(to)s GROUP BY day, place
) AS slots GROUP BY day
"""  # noqa: S608  built from constants
_READ_SMALL_ENVIRONMENTS = f"""
{_READ_ENVIRONMENTS}
UNION ALL SELECT {_NOT_WRITTEN} FROM fleet_heartbeat
WHERE agent_id IN (SELECT id FROM fleet_agent WHERE environment_id = ANY(%(id)s))
    AND (series_closed IS NOT NULL OR series_sums IS NOT NULL)
"""  # noqa: S608  built from constants


def read_agent(agent: Agent, since: datetime, until: datetime) -> list[Point]:
    """Return the slots of an agent that overlap the time range, oldest first, but none older than 90 days."""
    return _points(_READ_AGENT, agent.pk, since, until, _REPLACED)


def read_environments(
    environments: Collection[Environment], since: datetime, until: datetime, *, is_large: bool | None = None
) -> list[Point]:
    """Return the sums of the environments in the slots that overlap the time range, oldest first.

    Slots that are older than 90 days are left out. If ``is_large`` is true, the slots that ended less than five minutes
    ago and the current slot are left out as well. If it is None, a query finds out whether the environments have more
    than ``MOST_AGENTS_READ`` agents, counting decommissioned ones.
    """
    keys = [each.pk for each in environments]
    if is_large is None:
        is_large = Agent.objects.filter(environment__in=keys).order_by()[MOST_AGENTS_READ:].exists()
    if not is_large:
        return _points(_READ_SMALL_ENVIRONMENTS, keys, since, until)
    summed = _slot(timezone.now() - _WRITTEN_AFTER) * SLOT_S
    return _points(_READ_ENVIRONMENTS, keys, since, min(until, datetime.fromtimestamp(summed, UTC)))


def _slot(moment: datetime) -> int:
    return int(moment.timestamp() // SLOT_S)


def _points(
    statement: str, pk: UUID | list[UUID], since: datetime, until: datetime, replaced: frozenset[str] = frozenset()
) -> list[Point]:
    first = max(_slot(since), _slot(timezone.now()) - MAX_SLOTS + 1)
    numbers = range(first, _slot(until - timedelta(microseconds=1)) + 1)
    if not numbers:
        return []
    found: dict[int, Slot] = {}
    with connection.cursor() as cursor:
        cursor.execute(statement, {"id": pk, "from": _day(numbers[0]), "to": _day(numbers[-1])})
        for day, closed, *columns in cursor.fetchall():
            if day is None:
                slots: Iterable[tuple[int, Slot]] = _unwritten(closed and json.loads(closed), *columns[:4])
            else:
                midnight = _slot(datetime(day.year, day.month, day.day, tzinfo=UTC))
                slots = enumerate(zip(*columns, strict=True), midnight)
            for number, values in slots:
                found[number] = _merged(found.get(number), values, replaced)
    return [_point(number, found.get(number)) for number in numbers]


def _point(number: int, values: Slot | None) -> Point:
    at = datetime.fromtimestamp(number * SLOT_S, UTC)
    if values is None:
        return Point(at)
    records_in, records_out, drops, errors, _, memory_bytes, restarts, online = map(_whole, values)
    cpu = values[VALUES.index("cpu_percent")]
    cpu_percent = None if cpu is None else round(cpu, 3)
    return Point(at, records_in, records_out, drops, errors, cpu_percent, memory_bytes, restarts, online or 0)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
