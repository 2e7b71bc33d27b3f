"""The records that an agent's page shows: its history, offers, failures, captures and process start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce, JSONObject, Left
from django.utils.html import format_html

from apps.artifacts.models import Artifact, Replay, RequestedCapture
from apps.console.frame import row_link, short_id
from apps.fleet.models import AgentKey, Heartbeat
from apps.fleet.services import history
from apps.releases.models import AgentFailure, ApprovalDecision, Deployment, DeploymentAgent
from byteor_cloud.database.large_columns import without_large

INTERVALS: Final = 100
FAILURES: Final = 20
_CAPTURES: Final = 5  # of each kind
_MARKS: Final = 12
_MAX_TRIGGER: Final = 200  # characters


@dataclass(frozen=True, slots=True)
class Interval:
    """A period in which the agent ran a bundle. ``ended_at`` is None if no end is recorded."""

    started_at: datetime
    ended_at: datetime | None
    confirmed: datetime
    bundle_hash: str
    deployment_id: UUID | None


@dataclass(frozen=True, slots=True)
class AgentRecords:
    """The rows that an agent's page shows, newest first. Failures, captures and the key are dicts of JSON values."""

    intervals: list[Interval]
    offered: list[UUID]  # the latest deployments that the agent was offered in the charts' time range
    failures: list[dict[str, Any]]
    requested: list[dict[str, Any]]
    incidents: list[dict[str, Any]]
    key: dict[str, Any] | None
    runtime_version: str | None
    process_started_at: datetime | None


def read_records(agent: Any, offered_since: datetime) -> AgentRecords:
    """Read the records. ``offered_since`` limits the offers. The maximum numbers are the constants above."""
    of_agent = OuterRef("pk")
    replay = Replay.objects.filter(bisect=None).order_by("-pk").values(json=JSONObject(id="pk", status="status"))
    found = (
        Heartbeat.objects.filter(pk=agent.pk)
        .values_list(
            _as_array(
                history.intervals().filter(agent=of_agent).order_by("-started_at", "-id")[:INTERVALS],
                "started_at", "ended_at", "confirmed", "bundle_hash", "deployment_id",
            ),
            ArraySubquery(
                DeploymentAgent.objects.filter(agent=of_agent, offered_at__gte=offered_since)
                .order_by("-deployment_id")
                .values("deployment_id")[:_MARKS]
            ),
            _as_array(
                AgentFailure.objects.filter(part__agent=of_agent).order_by("-at", "-pk")[:FAILURES],
                "at", "action", "reason", "detail", "deployment_id",
                now_action="part__action", now_progress="part__progress",
            ),
            _as_array(
                RequestedCapture.objects.filter(agent=of_agent)
                .annotate(replay=Subquery(replay.filter(artifact=OuterRef("artifact"))[:1]))
                .order_by("-pk")[:_CAPTURES],
                "created_at", "status", "artifact_id", "replay", id="pk", why="reason", kind="artifact__kind",
            ),
            _as_array(
                Artifact.objects.filter(agent=of_agent, kind=Artifact.Kind.INCIDENT_BUNDLE)
                .annotate(
                    why=Left(KT("metadata__trigger"), _MAX_TRIGGER),
                    replay=Subquery(replay.filter(artifact=OuterRef("pk"))[:1]),
                )
                .order_by("-pk")[:_CAPTURES],
                "captured_at", "status", "why", "replay", id="pk",
            ),
            _as_array(
                AgentKey.objects.filter(agent=of_agent, is_pending=False, revoked_at=None).order_by("-pk")[:1],
                "prefix", "expires_at", id="pk",
            ),
            KT("report__runtime_version"),
            KT("report__uptime_s"),
        )
        .get()
    )  # fmt: skip
    intervals, offered, failures, requested, incidents, keys, runtime_version, uptime = found
    seen = agent.heartbeat.last_seen_at
    return AgentRecords(
        intervals=[_interval(each) for each in intervals],
        offered=offered,
        failures=failures,
        requested=requested,
        incidents=incidents,
        key=keys[0] if keys else None,
        runtime_version=runtime_version,
        process_started_at=_process_start(seen, uptime),
    )


def _as_array(rows: QuerySet[Any], *names: str, **paths: str) -> ArraySubquery:
    """Return an array with a JSON object for each row. Its members are the fields ``names``, and ``paths`` by name."""
    return ArraySubquery(rows.values(json=JSONObject(**{name: name for name in names}, **paths)))


def _interval(values: Mapping[str, Any]) -> Interval:
    started_at, deployment = datetime.fromisoformat(values["started_at"]), values["deployment_id"]
    return Interval(
        started_at,
        time_of(values["ended_at"]),
        time_of(values["confirmed"]) or started_at,
        values["bundle_hash"],
        UUID(deployment) if deployment else None,
    )


def time_of(text: str | None) -> datetime | None:
    """Parse a time in JSON from the database. Returns None for None."""
    return None if text is None else datetime.fromisoformat(text)


def _process_start(seen: datetime | None, uptime_s: str | None) -> datetime | None:
    """Return when the agent's process started, according to its last heartbeat; None if it is unknown."""
    try:
        return None if seen is None or uptime_s is None else seen - timedelta(seconds=float(uptime_s))
    except (OverflowError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Deployments:
    """The deployments that built or offered the bundles of an agent. Each has ``approved_by``, who approved it."""

    by_hash: Mapping[str | None, Any]
    by_id: Mapping[UUID | None, Any]

    def find(self, bundle_hash: str | None, deployment_id: UUID | None = None) -> Any:
        """Return the deployment that built the bundle, otherwise the one with the id, or None if both are unknown.

        The two can differ in a rollback: its offer names the deployment that is rolled back, not the one that built the
        bundle.
        """
        return self.by_hash.get(bundle_hash) or self.by_id.get(deployment_id)

    def name(self, bundle_hash: str | None, deployment_id: UUID | None = None) -> str:
        """Return a link to the version with the config bundle's name, as in "quotes v7 (bundle train)".

        Returns the short hash if ``find`` returns None.
        """
        found = self.find(bundle_hash, deployment_id)
        if found is None:
            return short_id(bundle_hash)
        return format_html("{} (bundle {})", row_link(found.config_bundle.version), found.config_bundle.name)


def read_deployments(agent: Any, hashes: Iterable[str | None], ids: Iterable[UUID | None]) -> Deployments:
    """Read the environment's deployments that built one of the bundles or have one of the ids."""
    consent = Coalesce(OuterRef("handed_in_id"), OuterRef("approval_id"))
    approvers = ApprovalDecision.objects.filter(approval=consent, decision="approve").order_by("pk")
    built = Q(bundle_hash__in={each for each in hashes if each is not None})
    named = Q(pk__in={each for each in ids if each is not None})
    rows = without_large(
        Deployment.objects.filter(built | named, environment=agent.environment_id)
        .select_related("config_bundle__version")
        .annotate(approved_by=ArraySubquery(approvers.values("decided_by")))
        .order_by("pk")
    )
    by_hash: dict[str | None, Any] = {}
    by_id: dict[UUID | None, Any] = {}
    for row in rows:
        row.environment = agent.environment  # saves a query
        by_id[row.pk] = row
        if row.bundle_hash is not None:
            by_hash[row.bundle_hash] = row
    return Deployments(by_hash, by_id)
