"""The hot path: one beat is one statement that finds the agent by its key, stores the beat and reads the answer."""

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
from apps.fleet.heartbeat_body import Beat
from apps.tenancy.policy import DEFAULT_HEARTBEAT_INTERVAL_S

# One statement for a batch of beats of different agents, whose rows are locked in one order.
_SQL = f"""
WITH beat AS (
    SELECT * FROM unnest(%s::int[], %s::text[], %s::uuid[], %s::text[], %s::text[], %s::jsonb[], %s::uuid[], %s::text[],
                         %s::text[], %s::float8[])
        AS b (number, digest, agent_id, status, agent_version, report, deployment_id, bundle_hash, spec_hash, pace)
), caller AS (
    SELECT b.*, o.key_set_etag, round(
            (coalesce((e.settings->>'heartbeat_interval_s')::float8, {DEFAULT_HEARTBEAT_INTERVAL_S}) * b.pace)::numeric,
            1
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
    next_heartbeat_s = c.next_heartbeat_s,
    running_since = CASE WHEN h.running_bundle_hash IS DISTINCT FROM c.bundle_hash THEN now() ELSE h.running_since END,
    running_deployment_id = c.deployment_id, running_bundle_hash = c.bundle_hash, running_spec_hash = c.spec_hash
FROM caller c JOIN held USING (agent_id) JOIN fleet_assignment s USING (agent_id)
WHERE h.agent_id = c.agent_id
RETURNING c.number, h.last_seen_at, h.next_heartbeat_s, c.key_set_etag,
    s.deployment_id, s.action, s.bundle_hash, s.since
"""  # noqa: S608  the number is a constant of ours


@dataclass(frozen=True, slots=True)
class Answer:
    """What the statement read while it stored the beat."""

    server_time: datetime
    next_heartbeat_s: float
    signing_key_etag: str
    deployment_id: UUID | None
    action: str | None
    bundle_hash: str | None
    offered_at: datetime | None


def store(*, digest: str, agent_id: UUID, beat: Beat) -> Answer | None:
    """Store the beat; it is durable when this returns. None when the key is not this agent's or not usable."""
    return _combiner.submit(agent_id, (digest, agent_id, beat))


def _store_batch(items: Sequence[_Item]) -> list[Answer | None]:
    answers: list[Answer | None] = [None] * len(items)
    rows = [
        (
            number,
            digest,
            agent_id,
            b.status,
            b.agent_version,
            Jsonb(b.report),
            b.deployment_id,
            b.bundle_hash,
            b.spec_hash,
            pace.factor(),
        )
        for number, (digest, agent_id, b) in enumerate(items)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_SQL, [list(column) for column in zip(*rows, strict=True)])
        for number, *read in cursor:
            answers[number] = Answer(*read)
    return answers


type _Item = tuple[str, UUID, Beat]
_combiner: Combiner[_Item, Answer] = Combiner(_store_batch)


class Pace:
    """Spreads a fleet's beats: by ±10 %, and stretched while this process is asked for more than it can take."""

    COMFORTABLE_PER_S = 500.0

    def __init__(self) -> None:
        self._second = 0
        self._count = 0
        self._rate = 0.0

    def factor(self) -> float:
        """Count a beat; what to multiply its environment's interval by for the agent's next one."""
        second = int(time.monotonic())
        if second != self._second:
            self._rate = 0.7 * self._rate + 0.3 * self._count / max(1, second - self._second)
            self._second, self._count = second, 0
        self._count += 1
        stretch = max(1.0, self._rate / self.COMFORTABLE_PER_S)
        return stretch * random.uniform(0.9, 1.1)  # noqa: S311  spread, not secrecy


pace = Pace()
