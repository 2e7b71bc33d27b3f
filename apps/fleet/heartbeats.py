"""Storage of heartbeats. One statement finds the agent by its key, stores the heartbeat and reads the response."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from psycopg.types.json import Jsonb

from apps.fleet.combining import Combiner
from apps.fleet.heartbeat_body import HeartbeatBody
from apps.tenancy.policy import DEFAULT_HEARTBEAT_INTERVAL_S

# The statement stores a batch of heartbeats of different agents. It locks their rows in the order of the ids, so that
# two batches cannot deadlock.
_SQL = f"""
WITH beat AS (
    SELECT * FROM unnest(%s::int[], %s::text[], %s::uuid[], %s::text[], %s::text[], %s::jsonb[], %s::uuid[], %s::text[],
                         %s::text[], %s::text[], %s::float8[])
        AS b (number, digest, agent_id, status, agent_version, report, deployment_id, bundle_hash, spec_hash,
              boot_id, interval_factor)
), caller AS (
    SELECT b.*, k.is_pending, o.key_set_etag, round(
            (coalesce((e.settings->>'heartbeat_interval_s')::float8, {DEFAULT_HEARTBEAT_INTERVAL_S})
            * b.interval_factor)::numeric, 1
        )::float8 AS next_heartbeat_s
    FROM beat b
    JOIN fleet_agentkey k ON k.digest = b.digest AND k.agent_id = b.agent_id
    JOIN fleet_agent a ON a.id = k.agent_id
    JOIN tenancy_environment e ON e.id = a.environment_id
    JOIN tenancy_project p ON p.id = e.project_id
    JOIN tenancy_organization o ON o.id = p.organization_id
    WHERE 'agent:heartbeat' = ANY(k.scopes)
      AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
      AND a.decommissioned_at IS NULL AND e.deleted_at IS NULL AND p.deleted_at IS NULL
), held AS (
    SELECT agent_id FROM fleet_heartbeat WHERE agent_id IN (SELECT agent_id FROM caller)
    ORDER BY agent_id FOR NO KEY UPDATE
)
UPDATE fleet_heartbeat h
SET last_seen_at = now(), status = c.status, agent_version = c.agent_version, report = c.report,
    next_heartbeat_s = c.next_heartbeat_s, boot_id = coalesce(c.boot_id, h.boot_id),
    running_since = CASE WHEN h.running_bundle_hash IS DISTINCT FROM c.bundle_hash THEN now() ELSE h.running_since END,
    running_deployment_id = c.deployment_id, running_bundle_hash = c.bundle_hash, running_spec_hash = c.spec_hash
FROM caller c JOIN held USING (agent_id) JOIN fleet_assignment s USING (agent_id)
WHERE h.agent_id = c.agent_id
RETURNING c.number, h.last_seen_at, h.next_heartbeat_s, c.key_set_etag,
    s.deployment_id, s.action, s.bundle_hash, s.since,
    CASE WHEN c.is_pending THEN '{{}}' ELSE h.commands END, c.is_pending
"""  # noqa: S608  only a constant is inserted


@dataclass(frozen=True, slots=True)
class StoredHeartbeat:
    """The data of the response to a heartbeat, which the statement read while it stored the heartbeat."""

    server_time: datetime
    next_heartbeat_s: float
    signing_key_etag: str
    deployment_id: UUID | None
    action: str | None
    bundle_hash: str | None
    offered_at: datetime | None
    commands: list[str]
    is_first_use: bool  # of a key that the agent had asked for: the caller then ends the agent's other keys


def store(*, digest: str, agent_id: UUID, heartbeat: HeartbeatBody) -> StoredHeartbeat | None:
    """Store the heartbeat durably. Returns None if the key is not usable or belongs to another agent."""
    return _combiner.submit(agent_id, (digest, agent_id, heartbeat))


def _store_batch(items: Sequence[_Item]) -> list[StoredHeartbeat | None]:
    stored: list[StoredHeartbeat | None] = [None] * len(items)
    rows = [
        (
            number,
            digest,
            agent_id,
            body.status,
            body.agent_version,
            Jsonb(body.report),
            body.deployment_id,
            body.bundle_hash,
            body.spec_hash,
            body.boot_id,
            load_spreader.next_factor(),
        )
        for number, (digest, agent_id, body) in enumerate(items)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_SQL, [list(column) for column in zip(*rows, strict=True)])
        for number, *columns in cursor:
            stored[number] = StoredHeartbeat(*columns)
    return stored


type _Item = tuple[str, UUID, HeartbeatBody]
_combiner: Combiner[_Item, StoredHeartbeat] = Combiner(_store_batch)


class LoadSpreader:
    """Chooses the time until an agent's next heartbeat: the interval ±10 %, longer while this process is overloaded."""

    COMFORTABLE_PER_S = 500.0

    def __init__(self) -> None:
        self._second = 0
        self._count = 0
        self._rate = 0.0

    def next_factor(self) -> float:
        """Count a heartbeat; return the factor of the environment's interval until the agent's next heartbeat."""
        second = int(time.monotonic())
        if second != self._second:
            self._rate = 0.7 * self._rate + 0.3 * self._count / max(1, second - self._second)
            self._second, self._count = second, 0
        self._count += 1
        stretch = max(1.0, self._rate / self.COMFORTABLE_PER_S)
        return stretch * random.uniform(0.9, 1.1)  # noqa: S311  this spreads load and keeps no secret


load_spreader = LoadSpreader()
