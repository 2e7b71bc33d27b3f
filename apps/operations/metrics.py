"""Domain metrics, read from the database when they are scraped, and then cached for a few seconds.

No label contains the name of a tenant.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import override

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Count
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.artifacts.models import Artifact, Replay
from apps.fleet.models import Agent, Liveness
from apps.fleet.services import facts
from apps.operations.services import backups
from apps.releases.models import Approval, Deployment
from apps.tenancy.models import Environment, Stateful
from byteor_cloud.concurrency.sharing import Shared
from byteor_cloud.server import counters

CACHE_S = 5.0  # seconds, so that frequent scrapes or several scrapers do not load the database
TIMEOUT_MS = 2000
MAX_UNSEALED = 10_000  # per chain: more unsealed events are not counted, because that would take too long
logger = structlog.get_logger(__name__)


class JobStatus(StrEnum):
    """The statuses of stored jobs. Jobs that succeed are deleted."""

    WAITING = "todo"
    RUNNING = "doing"
    DEAD = "failed"


_JOBS = "SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY status"
# The seconds that the due job with the lowest id has waited since its scheduled time or, without one, since it was
# enqueued.
_OLDEST_JOB = """
SELECT greatest(0, extract(epoch FROM now() - coalesce(j.scheduled_at, min(e.at))))
FROM procrastinate_jobs j LEFT JOIN procrastinate_events e ON e.job_id = j.id AND e.type = 'deferred'
WHERE j.id = (SELECT id FROM procrastinate_jobs
              WHERE status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now()) ORDER BY id LIMIT 1)
GROUP BY j.id
"""
# Count the events after the last seal of each chain. A search for events without a seal would read the whole ledger.
_UNSEALED = """
SELECT coalesce(sum(behind.count), 0) + (
    SELECT count(*) FROM (
        SELECT 1 FROM tenancy_auditevent
        WHERE organization_id IS NULL AND id > coalesce(
            (SELECT event_id FROM tenancy_auditseal WHERE organization_id IS NULL ORDER BY seq DESC LIMIT 1),
            '00000000-0000-0000-0000-000000000000'
        ) LIMIT %(limit)s
    ) AS events
)
FROM tenancy_organization o
LEFT JOIN LATERAL (
    SELECT event_id FROM tenancy_auditseal WHERE organization_id = o.id ORDER BY seq DESC LIMIT 1
) AS head ON true
CROSS JOIN LATERAL (
    SELECT count(*) FROM (
        SELECT 1 FROM tenancy_auditevent
        WHERE organization_id = o.id AND (head.event_id IS NULL OR id > head.event_id) LIMIT %(limit)s
    ) AS events
) AS behind
"""


class DomainCollector(Collector):
    """Gauges of the whole installation. Every API process reports all of them, so do not add them up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._series: list[Metric] = []

    @override
    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at > CACHE_S:
                try:
                    self._series = _read()
                except (DatabaseError, InterfaceError) as error:
                    # Without the database, still serve the other metrics.
                    logger.warning("domain_metrics_unavailable", kind=type(error).__name__)
                    return []
                self._read_at = time.monotonic()
            return self._series


def _read() -> list[Metric]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
        agents, drained = _agents()
        cursor.execute(_JOBS)
        jobs = dict(cursor.fetchall())
        cursor.execute(_OLDEST_JOB)
        oldest = cursor.fetchone()
        cursor.execute(_UNSEALED, {"limit": MAX_UNSEALED})
        unsealed = cursor.fetchone()[0]
        return [
            _gauge("byteor_agents", "Enrolled agents.", Liveness, agents.liveness, label="liveness"),
            _value("byteor_agents_drifted", "Agents that do not run the desired bundle.", agents.drifted),
            _value("byteor_agents_drained", "Drained agents. They receive no new offers except rollbacks.", drained),
            _value("byteor_agents_cloned", "Agents whose key seems to be used by two machines.", agents.cloned),
            _by_status("byteor_deployments", "Deployments.", Deployment),
            _by_status("byteor_approvals", "Approvals.", Approval),
            _by_status("byteor_artifacts", "Artifacts.", Artifact),
            _by_status("byteor_replays", "Replays.", Replay),
            _gauge("byteor_jobs", "Stored jobs. Failed jobs are dead letters.", JobStatus, jobs),
            _value(
                "byteor_jobs_oldest_waiting_seconds",
                "Seconds that the oldest due job has waited.",
                oldest[0] if oldest else 0,
            ),
            _value(
                "byteor_audit_unsealed_events",
                f"Audit events that are not sealed yet. At most {MAX_UNSEALED:,} are counted for each chain.",
                unsealed,
            ),
            _value(
                "byteor_last_backup_timestamp_seconds",
                "Unix time at which the newest recorded backup was completed. 0 if none is recorded.",
                backup.timestamp() if (backup := backups.last_created_at()) else 0,
            ),
        ]


def _agents() -> tuple[facts.States, int]:
    """Return the number of agents in each state, and of drained agents, in all environments that are not deleted."""
    live = Environment.objects.filter(deleted_at=None, project__deleted_at=None)
    drained = Agent.objects.enrolled().filter(environment__in=live, drained_at__isnull=False)
    return facts.count_states(live), drained.count()


def _by_status(name: str, help_text: str, model: type[Stateful]) -> Metric:
    rows = model._base_manager.order_by().values("status").annotate(count=Count("pk"))  # type: ignore[misc]  # Stateful is abstract
    return _gauge(name, help_text, model.machine.states, {row["status"]: row["count"] for row in rows})


def _gauge(
    name: str, help_text: str, labels: type[StrEnum], counts: Mapping[str, int], *, label: str = "status"
) -> Metric:
    """Return a gauge with a sample for every value of the label, even if the count is 0."""
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for value in labels:
        family.add_metric([value], counts.get(value, 0))
    return family


def _value(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=float(value))


REGISTRY = CollectorRegistry()
REGISTRY.register(DomainCollector())
TEXT = Shared(lambda: generate_latest(counters.registry()) + generate_latest(REGISTRY))
