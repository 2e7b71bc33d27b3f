"""Explain why agents run what they run, and what happens next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import (
    BooleanField,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    Max,
    OuterRef,
    Q,
    Subquery,
    When,
)
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.fleet.models import OFFLINE_AFTER
from apps.releases.models import AgentFailure, Deployment, DeploymentAgent, KnownBad, TimelineEntry
from apps.releases.services import blockers, replay_gate, reviewers, wave_holds
from apps.tenancy.models import Environment
from byteor.engine import freeze
from byteor.engine.blockers import Blocker
from byteor.engine.explain import explain, facts
from byteor.engine.explain.findings import Explanation
from byteor.engine.explain.targets import find_mismatch
from byteor.engine.machines import (
    FINISHED,
    IN_FLIGHT,
    UNDER_WAY,
    AgentProgress,
    ApprovalStatus,
    DeploymentStatus,
    OfferAction,
)
from byteor.engine.rollout import RolloutAgent
from byteor_cloud.database.large_columns import without_large

MAX_DEPLOYMENTS = 100  # the maximum per agent: first those in its assignment and heartbeat, then the newest
_EVENTS = ["pause", "retry", "abort", "roll_back"]
# Large columns that explanations need.
_READ = frozenset(
    {
        "strategy",
        "policy",
        "detail",
        "rollback_reason",
        "freeze_override",
        "break_glass",
        "replay_gate_override",
        "reviewers",
        "approval__reviewers",
        "handed_in__reviewers",
        "wave_hold",
    }
)


def explain_agent(agent: Any) -> Explanation:
    """Explain why the agent runs what it runs, and what happens next. Pass an agent that was read ``with_state()``."""
    return explain(collect_facts(agent, timezone.now()))


def collect_facts(agent: Any, now: datetime) -> facts.Facts:
    """Return the facts that explain the agent at ``now``."""
    found = _relevant_deployments(agent)
    enlistments = {
        enlistment.deployment_id: enlistment
        for enlistment in without_large(
            DeploymentAgent.objects.filter(agent=agent, deployment__in=[row.pk for row in found]), {"detail"}
        ).annotate(failed_before=Exists(AgentFailure.objects.filter(part=OuterRef("pk"), action=OfferAction.ACTIVATE)))
    }
    actions = _latest_actions(found)
    waves = _wave_facts(
        [row for row in found if row.pk in enlistments and row.status == DeploymentStatus.DEPLOYING], enlistments
    )
    held_up = blockers.find_held_up([row for row in found if row.status in IN_FLIGHT])
    gated = replay_gate.find_blockers([row for row in found if row.status == DeploymentStatus.PENDING_APPROVAL])
    deployments = (
        _deployment_facts(
            row,
            enlistments.get(row.pk),
            waves.get(row.pk, {}),
            actions.get(row.pk, {}),
            held_up.get(row.pk, ""),
            gated.get(row.pk, ()),
        )
        for row in found
    )
    window = freeze.last_open_window(agent.environment.effective_settings.freeze_windows, now)
    collected = facts.Facts(
        now=now,
        agent=_agent_facts(agent),
        deployments=tuple(deployments),
        freeze=window and facts.FreezeFacts(window[0].reason, window[1]),
    )
    return _with_blockers(collected, agent.environment)


def _with_blockers(collected: facts.Facts, environment: Environment) -> facts.Facts:
    """Add the blockers of each approved deployment that does not skip the agent."""
    waiting = {
        each.id
        for each in collected.deployments
        if each.status is DeploymentStatus.APPROVED and find_mismatch(collected, each) is None
    }
    if not waiting:
        return collected
    found = blockers.find_start_blockers(environment, waiting, collected.now)
    deployments = (replace(each, blockers=tuple(found.get(each.id, each.blockers))) for each in collected.deployments)
    return replace(collected, deployments=tuple(deployments))


def _agent_facts(agent: Any) -> facts.AgentFacts:
    assignment, heartbeat = agent.assignment, agent.heartbeat
    offer = running = failure = None
    if assignment.deployment_id is not None and assignment.bundle_hash is not None:
        offer = facts.OfferFacts(
            deployment=assignment.deployment_id,
            source=assignment.bundle_deployment_id,
            action=OfferAction(assignment.action),
            bundle_hash=assignment.bundle_hash,
            since=assignment.since,
            progress=AgentProgress(assignment.progress),
            held_backup_at=assignment.held_backup_at,
        )
    if heartbeat.running_bundle_hash is not None:
        running = facts.RunningFacts(heartbeat.running_deployment_id, heartbeat.running_bundle_hash)
    if assignment.failed_bundle_hash is not None:
        failure = facts.FailureFacts(assignment.failed_deployment_id, assignment.failed_since, assignment.failed_detail)
    return facts.AgentFacts(
        id=agent.pk,
        name=agent.name,
        enrolled_at=agent.created_at,
        liveness=agent.liveness,
        labels=agent.labels,
        last_seen_at=heartbeat.last_seen_at,
        interval_s=heartbeat.next_heartbeat_s,
        offline_after=OFFLINE_AFTER,
        decommissioned_at=agent.decommissioned_at,
        drained_at=agent.drained_at,
        drain_reason=agent.drain_reason,
        offer=offer,
        running=running,
        running_since=heartbeat.running_since,
        failure=failure,
    )


def _relevant_deployments(agent: Any) -> list[Any]:
    """Return the deployments that may concern the agent, newest first, at most ``MAX_DEPLOYMENTS``.

    They are the deployments that are current, in flight or waiting for approval, the deployments of the agent's offer,
    last failure and last heartbeat, and the newest deployment that enlisted the agent.
    """
    assignment, heartbeat = agent.assignment, agent.heartbeat
    offer = (assignment.deployment_id, assignment.bundle_deployment_id, assignment.failed_deployment_id)
    named = Q(pk__in=[pk for pk in (*offer, heartbeat.running_deployment_id) if pk is not None])
    last = DeploymentAgent.objects.filter(agent=agent).order_by("-deployment_id").values("deployment_id")[:1]
    alive = Q(is_current=True) | Q(status__in=[DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT])
    given = reviewers.consents_that_count().filter(approval=OuterRef("approval")).order_by()
    bad = KnownBad.objects.filter(environment=agent.environment_id, config_hash=OuterRef("config_hash"))
    names_agent = Case(
        When(
            target__has_key="agents",
            then=ExpressionWrapper(Q(target__agents__contains=str(agent.pk)), output_field=BooleanField()),
        ),
        default=None,
        output_field=BooleanField(null=True),
    )
    rows = (
        without_large(
            Deployment.objects.filter(named | alive | Q(pk__in=last), environment=agent.environment_id).select_related(
                "approval", "handed_in"
            ),
            _READ,
        )
        .annotate(
            bundle_name=F("config_bundle__name"),
            selector=F("target__selector"),
            names_agent=names_agent,
            is_enlisting=ExpressionWrapper(Q(enlisting__isnull=False), output_field=BooleanField()),
            given=Coalesce(Subquery(given.values("approval").annotate(count=Count("pk")).values("count")), 0),
            bad=Subquery(bad.values("reason")),
        )
        .order_by(Case(When(named, then=0), default=1), "-id")
    )
    return sorted(rows[:MAX_DEPLOYMENTS], key=lambda row: row.pk, reverse=True)


def _deployment_facts(
    row: Any,
    enlistment: DeploymentAgent | None,
    waves: Mapping[int, facts.WaveFacts],
    actions: Mapping[str, facts.ActionFacts],
    held_up: str,
    gated: Sequence[Blocker],
) -> facts.DeploymentFacts:
    return facts.DeploymentFacts(
        id=row.pk,
        pipeline=row.pipeline,
        bundle=row.bundle_name,
        status=DeploymentStatus(row.status),
        config_hash=row.config_hash,
        target=facts.TargetFacts(row.selector, row.names_agent, row.target_count),
        strategy=row.strategy,
        timeout_s=None if row.status in UNDER_WAY and row.served_at is None else row.policy.agent_timeout_s,
        take_over=row.take_over,
        is_enlisting=row.is_enlisting,
        is_current=row.is_current,
        wave=row.wave,
        wave_done_at=row.wave_done_at,
        wave_hold=wave_holds.describe(row),
        paused_at=row.paused_at,
        activated_at=row.activated_at,
        reason=row.reason,
        detail=row.detail,
        rollback_reason=row.rollback_reason,
        known_bad=row.bad,
        held_up=held_up,
        blockers=tuple(gated),
        approval=_consent_facts(row),
        break_glass=row.break_glass,
        enlistment=_enlistment_facts(enlistment, row) if enlistment else None,
        waves=waves,
        actions=actions,
    )


def _consent_facts(row: Any) -> facts.ApprovalFacts | None:
    approval = row.consent
    if approval is None:
        return None
    status = ApprovalStatus(approval.status)
    return facts.ApprovalFacts(
        approval.pk,
        status,
        row.given,
        approval.required_approvals,
        approval.expires_at,
        is_used=approval.used_at is not None,
        deciders=reviewers.name_deciders(approval) if approval.reviewers and status is ApprovalStatus.PENDING else "",
    )


def _enlistment_facts(enlistment: Any, deployment: Deployment) -> facts.EnlistmentFacts:
    since = enlistment.offered_at and deployment.timed_from(enlistment.offered_at)
    agent = RolloutAgent(
        enlistment.agent_id, enlistment.wave, enlistment.counted, AgentProgress(enlistment.progress), since
    )
    return facts.EnlistmentFacts(agent, enlistment.detail, enlistment.updated_at, enlistment.failed_before)


def _latest_actions(found: Iterable[Any]) -> dict[UUID, dict[str, facts.ActionFacts]]:
    """Return the last action of each kind, by deployment id and event: who performed it, when and why."""
    entries = (
        TimelineEntry.objects.filter(deployment__in=[row.pk for row in found], event__in=_EVENTS)
        .order_by("deployment_id", "event", "-id")
        .distinct("deployment_id", "event")
    )
    actions: dict[UUID, dict[str, facts.ActionFacts]] = {}
    for entry in entries:
        by = "the control plane" if entry.actor.startswith("system:") else entry.actor
        action = facts.ActionFacts(by, entry.created_at, entry.detail.get("reason") or "")
        actions.setdefault(entry.deployment_id, {})[entry.event] = action
    return actions


def _wave_facts(
    running: Collection[Any], enlistments: Mapping[UUID, DeploymentAgent]
) -> dict[UUID, dict[int, facts.WaveFacts]]:
    """Return the progress of the current wave and of the agent's wave, by deployment id and wave."""
    condition = Q()
    for row in running:
        condition |= Q(deployment=row.pk, wave__in={row.wave, enlistments[row.pk].wave})
    if not condition:
        return {}
    counted = (
        DeploymentAgent.objects.filter(condition, counted=True, agent__decommissioned_at=None)
        .order_by()
        .values("deployment_id", "wave")
        .annotate(
            total=Count("pk"),
            done=Count("pk", filter=Q(progress__in=FINISHED)),
            failed=Count("pk", filter=Q(progress=AgentProgress.FAILED)),
            last_offered_at=Max("offered_at", filter=~Q(progress__in=FINISHED)),
        )
    )
    deployments = {row.pk: row for row in running}
    waves: dict[UUID, dict[int, facts.WaveFacts]] = {}
    for row in counted:
        last = row["last_offered_at"]
        last = last and deployments[row["deployment_id"]].timed_from(last)
        wave = facts.WaveFacts(row["total"], row["done"], row["failed"], last)
        waves.setdefault(row["deployment_id"], {})[row["wave"]] = wave
    return waves
