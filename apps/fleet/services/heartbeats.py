"""Heartbeats: check their bodies, store them in batches and read the agents' offers, spread the load, and count them.

The OpenAPI components and the checks are both derived from one JSON Schema of the body. The checks are compiled
functions, because a serializer is too slow for thousands of heartbeats a second.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError
from django.db.models import Q

from apps.fleet.models import Heartbeat
from apps.fleet.services.series import SLOT_S, readings
from byteor_cloud.concurrency.combining import Combiner
from byteor_cloud.database.connections import FrequentStatement
from byteor_cloud.errors import FieldError, InvalidInput, child_pointer
from byteor_cloud.ids import read_id
from byteor_cloud.patterns import SHA256, matcher

COUNTED_EVERY_S = 60.0  # seconds between updates of the organizations' usage
logger = structlog.get_logger(__name__)

# -- body ------------------------------------------------------------------------------------------------------------

_MAX_VERSION = 64
_HASH = {"type": "string", "minLength": 1, "pattern": SHA256}
_OBJECT = {"type": ["object", "null"], "additionalProperties": {}}
BOOT_ID = {
    "type": ["string", "null"],
    "maxLength": 64,
    "description": "The id of the agent's process, new at each start. It reveals when two machines use the same key. "
    "Null if unknown.",
}
_ACTIVE = {
    "type": "object",
    "description": "The bundle that the agent runs.",
    "properties": {
        "deployment_id": {
            "type": "string",
            "format": "uuid",
            "description": "The id of the deployment in the bundle's manifest.",
        },
        "bundle_hash": {**_HASH, "description": "The SHA-256 of the deploy bundle."},
        "spec_hash": {**_HASH, "description": "The spec hash of the pipeline."},
    },
    "required": ["bundle_hash", "deployment_id", "spec_hash"],
    "additionalProperties": False,
}
_BODY = {
    "type": "object",
    "description": "The body of a heartbeat.",
    "properties": {
        "status": {"enum": Heartbeat.Status.values, "type": "string", "description": "The agent's health."},
        "agent_version": {
            "type": "string",
            "minLength": 1,
            "maxLength": _MAX_VERSION,
            "description": "The version of the agent program.",
        },
        "runtime_version": {
            "type": ["string", "null"],
            "maxLength": _MAX_VERSION,
            "description": "The version of the pipeline runtime. Null if unknown.",
        },
        "uptime_s": {
            "type": ["number", "null"],
            "format": "double",
            "minimum": 0,
            "description": "The seconds since the agent started. Null if unknown.",
        },
        "boot_id": BOOT_ID,
        "active": {
            "oneOf": [{"$ref": "#/components/schemas/ActiveRequest"}, {"type": "null"}],
            "description": "The bundle that the agent runs. Null if it runs none.",
        },
        "tuning": {
            **_OBJECT,
            "description": "The tuning profile, and which of its settings the agent could apply. "
            "Null if there is no profile.",
        },
        "resources": {
            **_OBJECT,
            "description": "The agent's resource usage, such as `cpu_percent` and `memory_bytes` of its process, and "
            "`disk_free_bytes`. The series contain `cpu_percent` and `memory_bytes`. Null if unknown.",
        },
        "pipeline": {
            **_OBJECT,
            "description": "The pipeline's counters: `records_in`, `records_out`, `drops` and `errors`, integers that "
            "count from the start of the pipeline. The series contain their increases. Null if no pipeline is "
            "running.",
        },
    },
    "required": ["agent_version", "status"],
    "additionalProperties": False,
}
SCHEMAS = {"HeartbeatRequest": _BODY, "ActiveRequest": _ACTIVE}
"""The components of the OpenAPI document that describe the body of a heartbeat."""


@dataclass(frozen=True, slots=True)
class HeartbeatBody:
    """A checked heartbeat body."""

    status: str
    agent_version: str
    deployment_id: UUID | None
    bundle_hash: str | None
    spec_hash: str | None
    boot_id: str | None
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Check:
    """The check of one field, and the error for values that fail it."""

    passes: Callable[[Any], bool]
    detail: str
    code: str = "invalid"


def _check(schema: Mapping[str, Any]) -> _Check:
    """Compile the check of one field from its JSON Schema."""
    match schema:
        case {"enum": [*values]}:
            known = frozenset(values)
            detail = f"Must be one of {', '.join(sorted(known))}."
            return _Check(lambda value: isinstance(value, str) and value in known, detail, "invalid_choice")
        case {"pattern": pattern}:
            matches = matcher(pattern)
            detail = "Must be sha256: followed by 64 lowercase hexadecimal digits."
            return _Check(lambda value: isinstance(value, str) and matches(value), detail)
        case {"maxLength": most, "minLength": least}:
            detail = f"Must be a string of {least} to {most} characters."
            return _Check(lambda value: isinstance(value, str) and least <= len(value) <= most, detail)
        case {"maxLength": most}:
            detail = f"Must be a string of at most {most} characters."
            return _Check(lambda value: value is None or (isinstance(value, str) and len(value) <= most), detail)
        case {"minimum": least}:
            return _Check(
                lambda value: value is None or (type(value) in {int, float} and value >= least),
                "Must be a number of seconds, 0 or more.",
            )
        case {"type": ["object", "null"]}:
            return _Check(lambda value: value is None or isinstance(value, dict), "Must be an object.")
    raise AssertionError(f"no check for {schema}")


def _checks(schema: Any, *, except_field: str) -> dict[str, _Check]:
    """Compile the checks of an object's fields, except for one field that ``parse`` checks itself."""
    return {name: _check(field) for name, field in schema["properties"].items() if name != except_field}


_BODY_CHECKS = _checks(_BODY, except_field="active")
_ACTIVE_CHECKS = _checks(_ACTIVE, except_field="deployment_id")
_REPORT_FIELDS = [name for name in _BODY_CHECKS if name not in {"status", "agent_version", "boot_id"}]


def parse(body: Any) -> HeartbeatBody:
    """Check and parse the body of a heartbeat. Raises InvalidInput with all errors."""
    if not isinstance(body, dict):
        raise InvalidInput.at("", "Must be an object.")
    errors = _find_errors(body, _BODY_CHECKS, "", "active")
    deployment_id = bundle_hash = spec_hash = None
    active = body.get("active")
    if isinstance(active, dict):
        errors += _find_errors(active, _ACTIVE_CHECKS, "/active", "deployment_id")
        bundle_hash, spec_hash = active.get("bundle_hash"), active.get("spec_hash")
        try:
            deployment_id = read_id(active["deployment_id"])
        except (KeyError, ValueError, TypeError):
            errors.append(FieldError("/active/deployment_id", "invalid", "Must be an id."))
    elif active is not None:
        errors.append(FieldError("/active", "invalid", "Must be an object or null."))
    if errors:
        raise InvalidInput(" ".join(e.detail for e in errors[:3]), errors=errors)
    report = {name: body[name] for name in _REPORT_FIELDS if body.get(name) is not None}
    boot_id = body.get("boot_id") or None
    return HeartbeatBody(body["status"], body["agent_version"], deployment_id, bundle_hash, spec_hash, boot_id, report)


def _find_errors(
    body: Mapping[str, Any], checks: Mapping[str, _Check], pointer: str, except_field: str
) -> list[FieldError]:
    unknown = sorted(body.keys() - checks.keys() - {except_field})
    errors = [FieldError(child_pointer(pointer, key), "unknown_field", "Unknown field.") for key in unknown]
    for name, check in checks.items():
        if not check.passes(body.get(name)):
            errors.append(FieldError(f"{pointer}/{name}", check.code, check.detail))
    return errors


# -- storage ---------------------------------------------------------------------------------------------------------

# The statement stores a batch of heartbeats of different agents. It locks their rows in the order of the ids, so that
# two batches cannot deadlock. Of the columns that it sets, only ``agent_version`` is indexed, and its value rarely
# changes. Since each page has free space (migration ``triggers``), PostgreSQL can therefore nearly always use HOT
# updates, which touch no index.
# The condition on ``number`` is always true. Without it, PostgreSQL would expect a hundred heartbeats in each batch and
# could choose a plan that reads both tables completely.
#
# Of the columns for series, a usual heartbeat changes only the four that the statement sets. ``services/series.py``
# says when a trigger changes the others.
_SQL = f"""
WITH locked AS (
    SELECT b.*, s.deployment_id AS offered_deployment_id, s.action, s.since,
        CASE WHEN s.held_backup_at IS NULL THEN s.bundle_hash END AS offered_hash,
        floor(date_part('epoch', now()) / {SLOT_S})::int AS slot
    FROM json_to_recordset(%s::json) AS b (
        number int, agent_id uuid, status text, agent_version text, report jsonb, deployment_id uuid, bundle_hash text,
        spec_hash text, boot_id text, next_heartbeat_s float8, readings float8[])
    JOIN fleet_heartbeat h USING (agent_id) JOIN fleet_assignment s USING (agent_id)
    WHERE b.number BETWEEN 0 AND 10000
    ORDER BY b.agent_id FOR NO KEY UPDATE OF h
)
UPDATE fleet_heartbeat h
SET last_seen_at = now(), status = b.status, agent_version = b.agent_version, report = b.report,
    next_heartbeat_s = b.next_heartbeat_s, boot_id = coalesce(b.boot_id, h.boot_id),
    running_since = CASE WHEN h.running_bundle_hash IS DISTINCT FROM b.bundle_hash THEN now() ELSE h.running_since END,
    running_deployment_id = b.deployment_id, running_bundle_hash = b.bundle_hash, running_spec_hash = b.spec_hash,
    series_slot = b.slot, series_read = b.readings,
    series_recent = ARRAY[
        h.series_recent[1] + b.readings[6], h.series_recent[2] + b.readings[7], h.series_recent[3] + 1],
    series_changed = h.series_slot IS DISTINCT FROM b.slot
        OR h.running_deployment_id IS DISTINCT FROM b.deployment_id OR b.boot_id <> h.series_boots[1]
        OR b.readings[8] <> h.series_read[8] OR b.readings[1] < h.series_read[1] OR b.readings[2] < h.series_read[2]
        OR b.readings[3] < h.series_read[3] OR b.readings[4] < h.series_read[4] OR b.readings[5] < h.series_read[5]
FROM locked b
WHERE h.agent_id = b.agent_id
RETURNING b.number, h.last_seen_at, h.next_heartbeat_s, b.offered_deployment_id, b.action, b.offered_hash, b.since,
    h.commands
"""  # noqa: S608  built from constants
_COUNT_SQL = """
INSERT INTO tenancy_usecount (organization_id, kind, since, count)
SELECT key::uuid, 'heartbeats', date_trunc('month', now(), 'UTC') AT TIME ZONE 'UTC', value::bigint
FROM json_each_text(%s::json) RETURNING id
"""


@dataclass(frozen=True, slots=True)
class StoredHeartbeat:
    """The data for the response to a heartbeat, as returned by the statement that stored the heartbeat."""

    server_time: datetime
    next_heartbeat_s: float
    deployment_id: UUID | None
    action: str | None
    bundle_hash: str | None
    offered_at: datetime | None
    commands: list[str]


def store(
    *, agent_id: UUID, organization_id: UUID, interval_s: float, heartbeat: HeartbeatBody
) -> StoredHeartbeat | None:
    """Store the heartbeat durably. Returns None if the agent does not exist. The caller has verified the agent's key.

    ``interval_s`` is the environment's heartbeat interval, from which the time until the next heartbeat is computed.
    """
    stored = _combiner.submit(agent_id, (agent_id, interval_s, heartbeat))
    if stored is not None:
        tally.count(organization_id)
    return stored


def note_boot(agent_id: UUID, boot_id: str | None) -> None:
    """Store the id of the agent's process if it has changed. A trigger then checks whether a clone reported the id."""
    if boot_id:
        Heartbeat.objects.filter(~Q(boot_id=boot_id) | Q(boot_id=None), agent_id=agent_id).update(boot_id=boot_id)


def _store_batch(items: Sequence[_Item]) -> list[StoredHeartbeat | None]:
    stored: list[StoredHeartbeat | None] = [None] * len(items)
    rows = [
        {
            "number": number,
            "agent_id": str(agent_id),
            "status": body.status,
            "agent_version": body.agent_version,
            "report": body.report,
            "deployment_id": body.deployment_id and str(body.deployment_id),
            "bundle_hash": body.bundle_hash,
            "spec_hash": body.spec_hash,
            "boot_id": body.boot_id,
            "next_heartbeat_s": round(interval_s * load_spreader.next_factor(), 1),
            "readings": readings(body.report, body.boot_id),
        }
        for number, (agent_id, interval_s, body) in enumerate(items)
    ]
    for number, *columns in _statement.run(json.dumps(rows)):
        stored[number] = StoredHeartbeat(*columns)
    return stored


type _Item = tuple[UUID, float, HeartbeatBody]
_statement, _count_statement = FrequentStatement(_SQL), FrequentStatement(_COUNT_SQL)
_combiner: Combiner[_Item, StoredHeartbeat] = Combiner(_store_batch)


class LoadSpreader:
    """Varies heartbeat intervals by ±10 %, and lengthens them while this process is overloaded."""

    COMFORTABLE_PER_S = 2000.0

    def __init__(self) -> None:
        self._second = 0
        self._count = 0
        self._rate = 0.0

    def next_factor(self) -> float:
        """Count a heartbeat. Returns the factor by which to multiply the interval until the agent's next heartbeat."""
        second = int(time.monotonic())
        if second != self._second:
            self._rate = 0.7 * self._rate + 0.3 * self._count / max(1, second - self._second)
            self._second, self._count = second, 0
        self._count += 1
        stretch = max(1.0, self._rate / self.COMFORTABLE_PER_S)
        return stretch * random.uniform(0.9, 1.1)  # noqa: S311  spreads load, protects no secret


load_spreader = LoadSpreader()


class Tally:
    """Counts this process's heartbeats by organization. Adds them to the organizations' usage at most once a minute.

    Counting each heartbeat in the database would cost as much as storing it. If the process stops, the counts that it
    has not added yet are lost.
    """

    def __init__(self, write: Callable[[str], object] = _count_statement.run) -> None:
        self._write = write  # takes a JSON object with the number of heartbeats by organization id
        self._counts = Counter[UUID]()
        self._due = time.monotonic() + COUNTED_EVERY_S

    def count(self, organization_id: UUID) -> None:
        """Count a stored heartbeat. Store the counts at most once a minute, and keep counts that cannot be stored."""
        self._counts[organization_id] += 1
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + COUNTED_EVERY_S
        counts, self._counts = self._counts, Counter()
        try:
            self._write(json.dumps({str(pk): count for pk, count in counts.items()}))
        except (DatabaseError, InterfaceError) as error:
            self._counts.update(counts)
            logger.warning("heartbeats_not_counted", kind=type(error).__name__)


tally = Tally()
