"""The facts that explain an agent, gathered in a few queries, however large its deployments are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, Case, Count, ExpressionWrapper, F, Max, OuterRef, Q, Subquery, When
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.fleet.models import OFFLINE_AFTER
from apps.releases.models import ApprovalDecision, Deployment, DeploymentAgent, KnownBad, TimelineEntry
from byteor_cloud import jobs
from byteor_cloud.engine import freeze
from byteor_cloud.engine.explain import explain, facts
from byteor_cloud.engine.explain.findings import Explanation
from byteor_cloud.engine.machines import (
    FINISHED,
    IN_FLIGHT,
    UNDER_WAY,
    AgentProgress,
    ApprovalStatus,
    DeploymentStatus,
    OfferAction,
)
from byteor_cloud.engine.rollout import AgentView

AT_MOST = 100  # deployments: who has more that wait for approval is told of the newest
_EVENTS = ["pause", "retry", "abort", "roll_back"]
# They may hold the ids of a whole fleet, or a bundle's manifest.
_LARGE = ("target", "manifest", "signing_keys", "approval__target", "handed_in__target")


def of(agent: Any) -> Explanation:
    """Why the agent runs what it runs, and what happens next. ``agent`` comes ``with_state``."""
    return explain(facts_of(agent, timezone.now()))


def facts_of(agent: Any, now: datetime) -> facts.Facts:
    """All that has to do with the agent, at one moment."""
    found = _deployments(agent)
    parts = {
        part.deployment_id: part
        for part in DeploymentAgent.objects.filter(agent=agent, deployment__in=[row.pk for row in found])
    }
    said = _said(found)
    waves = _waves([row for row in found if row.pk in parts and row.status == DeploymentStatus.DEPLOYING], parts)
    held = held_up([row for row in found if row.status in IN_FLIGHT])
    told = (
        _deployment(row, parts.get(row.pk), waves.get(row.pk, {}), said.get(row.pk, {}), held.get(row.pk, ""))
        for row in found
    )
    window = freeze.open_until(agent.environment.effective_settings.freeze_windows, now)
    return facts.Facts(
        now=now,
        agent=_agent(agent),
        deployments=tuple(told),
        freeze=window and facts.Freeze(window[0].reason, window[1]),
    )


def held_up(deployments: Iterable[Deployment]) -> dict[UUID, str]:
    """Why the control plane cannot go on with deployments, as a sentence for each that it holds up."""
    by_key = {str(row.pk): row for row in deployments}
    told = {by_key[key].pk: obstacle.sentence for key, obstacle in jobs.find_obstacles(by_key).items()}
    for row in by_key.values():
        if row.status in UNDER_WAY and row.bundle_hash is not None and row.served_at is None:
            told.setdefault(row.pk, "Agents cannot get its bundle: the artifact store cannot be read. No time runs.")
    return told


def _agent(agent: Any) -> facts.Agent:
    wanted, beat = agent.assignment, agent.heartbeat
    offer = running = failure = None
    if wanted.deployment_id is not None and wanted.bundle_hash is not None:
        offer = facts.Offer(
            deployment=wanted.deployment_id,
            source=wanted.bundle_deployment_id,
            action=OfferAction(wanted.action),
            bundle_hash=wanted.bundle_hash,
            since=wanted.since,
            progress=AgentProgress(wanted.progress),
        )
    if beat.running_bundle_hash is not None:
        running = facts.Running(beat.running_deployment_id, beat.running_bundle_hash)
    if wanted.failed_bundle_hash is not None:
        failure = facts.Failure(wanted.failed_deployment_id, wanted.failed_since, wanted.failed_detail)
    return facts.Agent(
        id=agent.pk,
        name=agent.name,
        enrolled_at=agent.created_at,
        liveness=agent.liveness,
        labels=agent.labels,
        last_seen_at=beat.last_seen_at,
        interval_s=agent.environment.effective_settings.heartbeat_interval_s,
        offline_after=OFFLINE_AFTER,
        decommissioned_at=agent.decommissioned_at,
        offer=offer,
        running=running,
        running_since=beat.running_since,
        failure=failure,
    )


def _deployments(agent: Any) -> list[Any]:
    """Those that are current, under way or waiting, that the agent names, and the last that it was part of."""
    wanted, beat = agent.assignment, agent.heartbeat
    offer = (wanted.deployment_id, wanted.bundle_deployment_id, wanted.failed_deployment_id)
    named = Q(pk__in=[pk for pk in (*offer, beat.running_deployment_id) if pk is not None])
    last = DeploymentAgent.objects.filter(agent=agent).order_by("-deployment_id").values("deployment_id")[:1]
    alive = Q(is_current=True) | Q(status__in=[DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT])
    given = ApprovalDecision.objects.filter(approval=OuterRef("approval"), decision="approve").order_by()
    bad = KnownBad.objects.filter(environment=agent.environment_id, config_hash=OuterRef("config_hash"))
    names_it = Case(
        When(
            target__has_key="agents",
            then=ExpressionWrapper(Q(target__agents__contains=str(agent.pk)), output_field=BooleanField()),
        ),
        default=None,
        output_field=BooleanField(null=True),
    )
    rows = (
        Deployment.objects.filter(named | alive | Q(pk__in=last), environment=agent.environment_id)
        .select_related("approval", "handed_in")
        .defer(*_LARGE)
        .annotate(
            bundle_name=F("config_bundle__name"),
            selector=F("target__selector"),
            names_it=names_it,
            given=Coalesce(Subquery(given.values("approval").annotate(count=Count("pk")).values("count")), 0),
            bad=Subquery(bad.values("reason")),
        )
        .order_by(Case(When(named, then=0), default=1), "-id")
    )
    return sorted(rows[:AT_MOST], key=lambda row: row.pk, reverse=True)


def _deployment(
    row: Any,
    part: DeploymentAgent | None,
    waves: Mapping[int, facts.Wave],
    said: Mapping[str, facts.Act],
    held: str,
) -> facts.Deployment:
    return facts.Deployment(
        id=row.pk,
        pipeline=row.pipeline,
        bundle=row.bundle_name,
        status=DeploymentStatus(row.status),
        config_hash=row.config_hash,
        target=facts.Target(row.selector, row.names_it, row.target_count),
        strategy=row.strategy,
        timeout_s=row.policy.agent_timeout_s,
        max_in_flight=row.policy.max_in_flight_deployments,
        take_over=row.take_over,
        is_current=row.is_current,
        wave=row.wave,
        wave_done_at=row.wave_done_at,
        paused_at=row.paused_at,
        activated_at=row.activated_at,
        reason=row.reason,
        detail=row.detail,
        rollback_reason=row.rollback_reason,
        freeze_override=bool(row.freeze_override),
        known_bad=row.bad,
        held_up=held,
        approval=_consent(row),
        break_glass=row.break_glass,
        part=_part(part, row.timeouts_from) if part else None,
        waves=waves,
        acts=said,
    )


def _consent(row: Any) -> facts.Approval | None:
    approval = row.consent
    if approval is None:
        return None
    status = ApprovalStatus(approval.status)
    return facts.Approval(approval.pk, status, row.given, approval.required_approvals, approval.expires_at)


def _part(part: DeploymentAgent, timeouts_from: datetime | None) -> facts.Part:
    since = part.offered_at and max(part.offered_at, timeouts_from or part.offered_at)
    view = AgentView(part.agent_id, part.wave, part.counted, AgentProgress(part.progress), since)
    return facts.Part(view, part.detail, part.updated_at)


def _said(found: Iterable[Any]) -> dict[UUID, dict[str, facts.Act]]:
    """Who did what to each deployment last, and why."""
    entries = (
        TimelineEntry.objects.filter(deployment__in=[row.pk for row in found], event__in=_EVENTS)
        .order_by("deployment_id", "event", "-id")
        .distinct("deployment_id", "event")
    )
    said: dict[UUID, dict[str, facts.Act]] = {}
    for entry in entries:
        by = "the control plane" if entry.actor.startswith("system:") else entry.actor
        told = facts.Act(by, entry.created_at, entry.detail.get("reason") or "")
        said.setdefault(entry.deployment_id, {})[entry.event] = told
    return said


def _waves(running: Iterable[Any], parts: Mapping[UUID, DeploymentAgent]) -> dict[UUID, dict[int, facts.Wave]]:
    """How far the present wave is, and the agent's own; one query, none when nothing is under way."""
    asked = Q()
    for row in running:
        asked |= Q(deployment=row.pk, wave__in={row.wave, parts[row.pk].wave})
    if not asked:
        return {}
    counted = (
        DeploymentAgent.objects.filter(asked, counted=True, agent__decommissioned_at=None)
        .order_by()
        .values("deployment_id", "wave")
        .annotate(
            total=Count("pk"),
            done=Count("pk", filter=Q(progress__in=FINISHED)),
            failed=Count("pk", filter=Q(progress=AgentProgress.FAILED)),
            last_offered_at=Max("offered_at", filter=~Q(progress__in=FINISHED)),
        )
    )
    waves: dict[UUID, dict[int, facts.Wave]] = {}
    for row in counted:
        told = facts.Wave(row["total"], row["done"], row["failed"], row["last_offered_at"])
        waves.setdefault(row["deployment_id"], {})[row["wave"]] = told
    return waves
