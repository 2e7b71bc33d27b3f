"""The domain's own series, read from the database when somebody asks; no tenant's name is in a label."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import override

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Count, Q
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.artifacts.models import Artifact, Replay
from apps.fleet.models import Agent, Liveness
from apps.releases.models import Approval, Deployment
from apps.tenancy.state import Stateful

FRESH_S = 5.0  # several scrapers, or one that is impatient, cost the database no more than this
TIMEOUT_MS = 2000
MOST_UNSEALED = 10_000  # of one chain: beyond that the exact number says nothing more
logger = structlog.get_logger(__name__)


class JobStatus(StrEnum):
    """Those that last: jobs that succeed are deleted."""

    WAITING = "todo"
    RUNNING = "doing"
    DEAD = "failed"


_JOBS = "SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY status"
# The one that was enqueued first stands for the oldest: a job that is due waits since then, or since its own time.
_OLDEST_JOB = """
SELECT greatest(0, extract(epoch FROM now() - coalesce(j.scheduled_at, min(e.at))))
FROM procrastinate_jobs j LEFT JOIN procrastinate_events e ON e.job_id = j.id AND e.type = 'deferred'
WHERE j.id = (SELECT id FROM procrastinate_jobs
              WHERE status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now()) ORDER BY id LIMIT 1)
GROUP BY j.id
"""
# Behind the head of each chain, not every event without a seal: two look-ups in an index instead of the whole trail.
_UNSEALED = """
SELECT coalesce(sum(behind.count), 0) + (
    SELECT count(*) FROM (
        SELECT 1 FROM tenancy_auditevent
        WHERE organization_id IS NULL AND id > coalesce(
            (SELECT event_id FROM tenancy_auditseal WHERE organization_id IS NULL ORDER BY seq DESC LIMIT 1),
            '00000000-0000-0000-0000-000000000000'
        ) LIMIT %(most)s
    ) AS events
)
FROM tenancy_organization o
LEFT JOIN LATERAL (
    SELECT event_id FROM tenancy_auditseal WHERE organization_id = o.id ORDER BY seq DESC LIMIT 1
) AS head ON true
CROSS JOIN LATERAL (
    SELECT count(*) FROM (
        SELECT 1 FROM tenancy_auditevent
        WHERE organization_id = o.id AND (head.event_id IS NULL OR id > head.event_id) LIMIT %(most)s
    ) AS events
) AS behind
"""


class DomainCollector(Collector):
    """Gauges over the whole installation, so the same from every process: take one of them, not their sum."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._series: list[Metric] = []

    @override
    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S:
                try:
                    self._series = _read()
                except (DatabaseError, InterfaceError) as error:
                    # The processes' own series matter most just then.
                    logger.warning("domain_metrics_unavailable", kind=type(error).__name__)
                    return []
                self._read_at = time.monotonic()
            return self._series


def _read() -> list[Metric]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
        liveness, drifted = _agents()
        cursor.execute(_JOBS)
        jobs = dict(cursor.fetchall())
        cursor.execute(_OLDEST_JOB)
        oldest = cursor.fetchone()
        cursor.execute(_UNSEALED, {"most": MOST_UNSEALED})
        unsealed = cursor.fetchone()[0]
        return [
            _gauge("byteor_agents", "Enrolled agents.", Liveness, liveness, label="liveness"),
            _value("byteor_agents_drifted", "Agents that do not run what is desired.", drifted),
            _by_status("byteor_deployments", "Deployments.", Deployment),
            _by_status("byteor_approvals", "Approvals.", Approval),
            _by_status("byteor_artifacts", "Artifacts.", Artifact),
            _by_status("byteor_replays", "Replays.", Replay),
            _gauge("byteor_jobs", "Jobs of the worker's queue; failed ones are dead letters.", JobStatus, jobs),
            _value(
                "byteor_jobs_oldest_waiting_seconds", "How long a job that is due waits.", oldest[0] if oldest else 0
            ),
            _value("byteor_audit_unsealed_events", "Audit events not yet in their chain.", unsealed),
        ]


def _agents() -> tuple[dict[str, int], int]:
    """How many agents are how live, and how many drifted: one pass over all environments."""
    live = Agent.objects.enrolled().filter(environment__deleted_at=None, environment__project__deleted_at=None)
    by_liveness = live.with_state().select_related(None).order_by().values("liveness")
    found = list(by_liveness.annotate(count=Count("pk"), n_drifted=Count("pk", filter=Q(drifted=True))))
    return {row["liveness"]: row["count"] for row in found}, sum(row["n_drifted"] for row in found)


def _by_status(name: str, help_text: str, model: type[Stateful]) -> Metric:
    rows = model._base_manager.order_by().values("status").annotate(count=Count("pk"))  # type: ignore[misc]  # abstract
    return _gauge(name, help_text, model.machine.states, {row["status"]: row["count"] for row in rows})


def _gauge(
    name: str, help_text: str, labels: type[StrEnum], counts: Mapping[str, int], *, label: str = "status"
) -> Metric:
    """A series for every label, also where the count is 0."""
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for each in labels:
        family.add_metric([each], counts.get(each, 0))
    return family


def _value(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=float(value))


REGISTRY = CollectorRegistry()
REGISTRY.register(DomainCollector())
