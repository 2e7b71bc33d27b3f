"""Additional data for the list of deployments."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, IntegerField, Max, Min, OuterRef, Subquery, Sum
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce

from apps.releases.models import Deployment, TimelineEntry
from apps.releases.services import progress
from apps.releases.services.failures import AGENTS_FAILED
from byteor.engine.machines import AgentProgress, DeploymentEvent, DeploymentStatus

_ENDS = (DeploymentEvent.FAIL, DeploymentEvent.ABORT, DeploymentEvent.RESTORE)
_RUNNING = {DeploymentStatus.DEPLOYING, DeploymentStatus.ROLLING_BACK}


@dataclass(frozen=True, slots=True)
class Listed:
    """The number of the pipeline's previous version, the beginning and end of the rollout, and its agents.

    The rollout of a deployment that became active ended then, even if the deployment was rolled back later.

    ``failed`` includes agents that failed in a wave and were then rolled back. ``began_at`` and
    ``ended_at`` are None if this has not happened, or if the time is unknown.
    """

    before: int | None
    began_at: datetime | None
    ended_at: datetime | None
    agents: int
    failed: int


def read_listed(deployments: Collection[Deployment]) -> dict[UUID, Listed]:
    """Return the additional data of each deployment, by its id."""
    rows = Deployment.objects.filter(pk__in=[each.pk for each in deployments]).annotate(
        before_id=_before(), by_progress=progress.of_each_deployment(), began_at=_time(Min, "offer"),
        activated=_time(Max, DeploymentEvent.ACTIVATE), ended_at=_time(Max, *_ENDS), noted=_noted_failures(),
    )  # fmt: skip
    number = Deployment.objects.filter(pk=OuterRef("before_id")).values("config_bundle__version__number")
    found = rows.annotate(before=Subquery(number)).values_list(
        "pk", "status", "before", "began_at", "activated", "ended_at", "by_progress", "noted"
    )
    return {pk: _listed(*values) for pk, *values in found}


def _listed(
    status: str,
    before: int | None,
    began_at: Any,
    activated: Any,
    ended_at: Any,
    by_progress: dict[str, int] | None,
    noted: int | None,
) -> Listed:
    counts = by_progress or {}
    was_rolled_back = bool(counts.get(AgentProgress.ROLLED_BACK))
    failed = max(counts.get(AgentProgress.FAILED, 0), (noted or 0) if was_rolled_back else 0)
    ended = activated or (None if status in _RUNNING else ended_at)
    return Listed(before, began_at, None if began_at is None else ended, sum(counts.values()), failed)


def _before() -> Coalesce:
    """Return the id of the previous deployment: the restored, superseded or last active one.

    The ids are ordered by time, so the last lookup starts with the newest earlier deployment.
    """
    superseded = Deployment.objects.filter(superseded_by=OuterRef("pk")).order_by("-pk")
    earlier = Deployment.objects.filter(
        environment=OuterRef("environment"), pipeline=OuterRef("pipeline"), status=DeploymentStatus.ACTIVE,
        pk__lt=OuterRef("pk"),
    ).order_by("-pk")  # fmt: skip
    return Coalesce(F("restores"), Subquery(superseded.values("pk")[:1]), Subquery(earlier.values("pk")[:1]))


def _time(first_or_last: type[Min | Max], *events: str) -> Subquery:
    """Return when the first or the last of these events happened."""
    entries = TimelineEntry.objects.filter(deployment=OuterRef("pk"), event__in=events).order_by().values("deployment")
    return Subquery(entries.annotate(at=first_or_last("created_at")).values("at"))


def _noted_failures() -> Subquery:
    """Return the sum of the failed agents in the latest entry about each wave.

    After a retry, a wave can have a second entry, which counts agents of the first one again.

    The failures themselves are not counted, because there may be one for each of 100,000 agents.
    """
    entries = TimelineEntry.objects.filter(deployment=OuterRef("pk"), event=AGENTS_FAILED, detail__has_key="wave")
    later = TimelineEntry.objects.filter(
        deployment=OuterRef("deployment"), event=AGENTS_FAILED, detail__wave=OuterRef("detail__wave"),
        pk__gt=OuterRef("pk"),
    )  # fmt: skip
    failed = Cast(KT("detail__failed"), IntegerField())
    return Subquery(entries.filter(~Exists(later)).order_by().values("deployment").annotate(n=Sum(failed)).values("n"))
