"""The progress of a rollout or a rollback on a deployment's page: how much is done, and the time left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from apps.console.pages.deployments import estimates
from apps.console.pages.deployments.estimates import Pace, TimeLeft
from apps.releases.models import AgentReport, Deployment, TimelineEntry
from apps.releases.services.progress import AgentCounts
from byteor.engine.machines import FINISHED, AgentProgress, DeploymentStatus
from byteor_cloud.database.together import Plan
from byteor_cloud.ids import smallest_uuid7


def plan_progress(row: Any, timeline: Sequence[TimelineEntry]) -> Plan[str]:
    """Return the ``Plan`` for a phrase: how much of the rollout or the rollback is done, and the time left.

    The phrase is empty if neither is under way, or if there are no agents to count. It omits the time left while the
    deployment is paused, held or stalled, while agents cannot download the bundle, and until the first agent of the
    wave or the rollback has finished.
    ``timeline`` are the newest entries, the newest first. If the beginning of the wave or the rollback is not among
    them, the time left is unknown as well.
    """
    counts: AgentCounts = row.counted
    if row.status == DeploymentStatus.DEPLOYING:
        left = yield from _rollout_left(row, counts, timeline)
        return estimates.describe_progress(estimates.percent_done(counts.counted), left)
    if row.status == DeploymentStatus.ROLLING_BACK:
        offered = {key: n for key, n in counts.by_wave.items() if key[1] != AgentProgress.PENDING}
        left = yield from _rollback_left(row, counts, timeline)
        return estimates.describe_progress(estimates.percent_done(offered), left)
    return ""


def _rollout_left(row: Deployment, counts: AgentCounts, timeline: Sequence[TimelineEntry]) -> Plan[TimeLeft | None]:
    is_held = row.wave_hold is not None and not row.wave_hold.is_over
    if row.paused_at is not None or is_held or row.served_at is None:
        return None
    finished = sum(n for (wave, word), n in counts.counted.items() if wave == row.wave and word in FINISHED)
    pace = _measure(timeline, finished, row.wave_done_at or timezone.now())
    if pace is None or (row.wave_done_at is None and (yield from _is_stalled(row, pace))):
        return None
    return estimates.estimate_rollout(
        row.strategy, counts.counted, pace, wave=row.wave, wave_done_at=row.wave_done_at, now=timezone.now()
    )


def _rollback_left(row: Deployment, counts: AgentCounts, timeline: Sequence[TimelineEntry]) -> Plan[TimeLeft | None]:
    by_progress = counts.by_progress
    pace = _measure(timeline, sum(by_progress.get(word, 0) for word in FINISHED), timezone.now())
    if pace is None or row.served_at is None or (yield from _is_stalled(row, pace)):
        return None
    return estimates.estimate_rollback(by_progress, pace)


def _measure(timeline: Sequence[TimelineEntry], finished: int, until: datetime) -> Pace | None:
    """Return the pace since the wave or the rollback began; None if it is unknown."""
    time = estimates.measure_time([(each.event, each.created_at) for each in timeline], until) if finished else None
    return Pace(finished, time) if time else None


def _is_stalled(row: Deployment, pace: Pace) -> Plan[bool]:
    """Return whether no agent has reported for so long that the time left cannot be estimated."""
    now = timezone.now()
    reports = AgentReport.objects.filter(pk__gt=smallest_uuid7(now - pace.time), deployment=row, accepted=True)
    (found,) = yield [reports.order_by("-pk").values_list("created_at", flat=True)[:1]]
    latest = next(iter(found), None)
    return pace.is_stalled(pace.time if latest is None else max(now - latest, timedelta()))
