"""Deployments: requested, aborted, paused; what may stand in their way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.fleet import services as fleet
from apps.fleet.models import Agent, Assignment
from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent, KnownBad, TimelineEntry
from apps.releases.services import approvals, bundles
from apps.tenancy import audit, freeze
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.state import advance, lock
from byteor_cloud.engine.machines import (
    IN_FLIGHT,
    AgentProgress,
    ApprovalStatus,
    DeploymentEvent,
    DeploymentStatus,
)
from byteor_cloud.engine.rollout import Strategy
from byteor_cloud.errors import Conflict, Forbidden, InvalidInput
from byteor_cloud.jobs import enqueue

POLICY = (
    "approvals_required", "required_approvals", "allow_self_approval", "approval_ttl_s", "agent_timeout_s",
    "max_in_flight_deployments",
)  # fmt: skip


def strategy_of(deployment: Deployment) -> Strategy:
    """The planner's view of the stored strategy."""
    stored = deployment.strategy
    return Strategy(
        percents=tuple(stored.get("percents", (100,))),
        pause_s=stored.get("pause_s", 0),
        failure_threshold_percent=stored["failure_threshold_percent"],
    )


@transaction.atomic
def create_deployment(
    *,
    environment: Environment,
    config_bundle: ConfigBundle,
    target: Mapping[str, Any],
    strategy: Mapping[str, Any],
    note: str = "",
    take_over: bool = False,
    override_freeze: Mapping[str, str] | None = None,
    may_override: bool = False,
    actor: Actor,
) -> Deployment:
    """Ask for a deployment; it waits for approval where the environment wants one, else it starts.

    Raises Conflict when something stands in its way (freeze window, barred, in-flight limit, another pipeline on the
    agents), InvalidInput for an empty target, Forbidden for a freeze override without the right.
    """
    locked = lock(environment, related=("project__organization",))
    policy = {name: locked.effective_settings[name] for name in POLICY}
    _check_freeze(locked, override_freeze, may_override)
    if bundles.is_barred(locked.pk, config_bundle.config_hash):
        raise Conflict("This configuration is known bad here; clear it first.", code="known_bad")
    _check_in_flight(locked, policy["max_in_flight_deployments"])
    version = config_bundle.version
    agent_ids = list(fleet.matching(locked, target).values_list("pk", flat=True))
    _check_target(target, agent_ids)
    if not take_over:
        refuse_take_over(agent_ids, version.name)
    approval = None
    if policy["approvals_required"]:
        approval = approvals.request_approval(
            environment=locked,
            policy=policy,
            spec_hash=version.spec_hash,
            config_hash=config_bundle.config_hash,
            target={**target, "resolved": [str(pk) for pk in agent_ids[:1000]], "count": len(agent_ids)},
            strategy=dict(strategy),
            capabilities=config_bundle.required_capabilities,
            actor=actor,
        )
    status = DeploymentStatus.PENDING_APPROVAL if approval else DeploymentStatus.APPROVED
    deployment = Deployment.objects.create(
        environment=locked,
        status=status,
        config_bundle=config_bundle,
        pipeline=version.name,
        config_hash=config_bundle.config_hash,
        target=dict(target),
        target_count=len(agent_ids),
        strategy=dict(strategy),
        policy=policy,
        take_over=take_over,
        requested_by=actor.display,
        note=note,
        approval=approval,
    )
    changes = {
        "status": [None, status],
        "config_hash": [None, config_bundle.config_hash],
        "targets": [None, len(agent_ids)],
        **({"override_freeze": override_freeze["reason"]} if override_freeze else {}),
    }
    audit.record(
        "deployment.create",
        actor=actor,
        scope=locked,
        resource=("deployment", deployment.pk),
        changes=changes,
    )
    TimelineEntry.objects.create(deployment=deployment, event="create", actor=actor.display, detail=changes)
    if approval is None:
        enqueue("releases.build", serial=str(deployment.pk), deployment_id=str(deployment.pk))
    return deployment


def _check_freeze(environment: Environment, override: Mapping[str, str] | None, may_override: bool) -> None:
    window = freeze.active_window(environment.effective_settings["freeze_windows"], timezone.now())
    if override and not may_override:
        raise Forbidden("Only an org_admin may override a freeze window.")
    if window and not override:
        raise Conflict(f"A freeze window is open: {window['reason']}", code="freeze_window")


def _check_in_flight(environment: Environment, limit: int) -> None:
    running = Deployment.objects.filter(environment=environment, status__in=IN_FLIGHT).count()
    if running >= limit:
        raise Conflict(f"{running} deployment(s) are in flight here; the limit is {limit}.", code="in_flight_limit")


def _check_target(target: Mapping[str, Any], agent_ids: list[UUID]) -> None:
    known = {str(pk) for pk in agent_ids}
    unknown = [str(pk) for pk in target.get("agents", ()) if str(pk) not in known]
    if unknown:
        raise InvalidInput.at("/target/agents", f"There are no such agents here: {', '.join(unknown[:5])}.")
    if not agent_ids:
        raise InvalidInput.at("/target", "No agent matches the target.", code="empty_target")


def refuse_take_over(agent_ids: list[UUID], pipeline: str) -> None:
    """Raises Conflict when some of the agents are to run another pipeline."""
    wanted = Assignment.objects.filter(agent_id__in=agent_ids, deployment_id__isnull=False)
    others = (
        Deployment.objects.filter(pk__in=wanted.values("bundle_deployment_id"))
        .exclude(pipeline=pipeline)
        .values_list("pipeline", flat=True)
    )
    other = others.first()
    if other is not None:
        raise Conflict(f"Some of the agents run the pipeline {other}; say take_over to replace it.", code="take_over")


@transaction.atomic
def abort(deployment: Deployment, *, reason: str = "", actor: Actor) -> Deployment:
    """Stop it where it is: ``failed`` with the reason ``aborted``. What agents run already, they go on running."""
    if deployment.approval is not None:
        # Approval before deployment, as everywhere: one order of locks.
        approval = lock(deployment.approval)
        if approval.status == ApprovalStatus.PENDING or (
            approval.status == ApprovalStatus.APPROVED and approval.used_at is None
        ):
            approvals.withdraw(approval, actor=actor)
    aborted = advance(
        deployment,
        DeploymentEvent.ABORT,
        actor=actor,
        reason="aborted",
        detail=reason,
        paused_at=None,
        changes={"reason": reason},
    )
    withdraw_offers(aborted)
    return aborted


def withdraw_offers(deployment: Deployment) -> None:
    """Take back the offers that no agent has begun with: each is to run what it was to run before, if anything.

    Else an agent that was offline would start a release that was given up long ago.
    """
    open_offers = deployment.agents.filter(
        progress=AgentProgress.OFFERED, agent__assignment__deployment_id=deployment.pk
    )
    barred = KnownBad.objects.filter(environment_id=deployment.environment_id).values("config_hash")
    earlier_parts = (
        DeploymentAgent.objects.filter(
            deployment__in=open_offers.values("before"), agent__in=open_offers.values("agent"), offered_at__isnull=False
        )
        .exclude(deployment__config_hash__in=barred)
        .select_related("deployment")
    )
    before = {(part.deployment_id, part.agent_id): part for part in earlier_parts}
    groups: dict[tuple[fleet.Offer | None, str], list[UUID]] = {}
    for row in open_offers:
        part = before.get((row.before_id, row.agent_id)) if row.before_id else None
        again = (None, AgentProgress.PENDING) if part is None else (offer_of(part), part.progress)
        groups.setdefault(again, []).append(row.agent_id)
    for (instead, progress), agent_ids in groups.items():
        withdrawn = fleet.withdraw(agent_ids, deployment_id=deployment.pk, instead=instead, progress=progress)
        deployment.agents.filter(agent_id__in=withdrawn).update(
            progress=AgentProgress.PENDING, offered_at=None, updated_at=timezone.now()
        )


def offer_of(part: DeploymentAgent) -> fleet.Offer:
    """What the agent was offered as its part in the deployment."""
    deployment = part.deployment
    return fleet.Offer(
        deployment_id=deployment.pk,
        bundle_deployment_id=deployment.pk,
        action="activate",
        bundle_hash=deployment.bundle_hash or "",
        bundle_size=deployment.bundle_size or 0,
        since=part.offered_at or timezone.now(),
    )


@transaction.atomic
def set_paused(deployment: Deployment, *, paused: bool, reason: str = "", actor: Actor) -> Deployment:
    """Set or clear ``paused_at``; the status stays. Raises Conflict when it is not running, or is so already."""
    locked = lock(deployment, related=("environment__project",))
    if locked.status != DeploymentStatus.DEPLOYING:
        raise Conflict(f"The deployment is {locked.status}; only one that is deploying can be paused.")
    if (locked.paused_at is not None) is paused:
        raise Conflict("The deployment is paused already." if paused else "The deployment is not paused.")
    locked.paused_at = timezone.now() if paused else None
    locked.save(update_fields=["paused_at"])
    event = "pause" if paused else "resume"
    audit.record(
        f"deployment.{event}",
        actor=actor,
        scope=locked.environment,
        resource=("deployment", locked.pk),
        changes={"reason": reason},
    )
    TimelineEntry.objects.create(deployment=locked, event=event, actor=actor.display, detail={"reason": reason})
    wake(locked.pk)
    return locked


def wake(deployment_id: object) -> None:
    """Have the worker take the deployment's next step; many wakes become one."""
    enqueue(
        "releases.step",
        once=f"step:{deployment_id}",
        serial=str(deployment_id),
        deployment_id=str(deployment_id),
    )


def enlist(
    deployment: Deployment, agents: list[Agent], *, wave_of: Mapping[UUID, int], counted: Mapping[UUID, bool]
) -> None:
    """Note the agents' part in the deployment, and what each was to run before."""
    assignments = Assignment.objects.in_bulk([a.pk for a in agents])
    known = set(
        Deployment.objects.filter(
            pk__in={a.bundle_deployment_id for a in assignments.values() if a.bundle_deployment_id}
        ).values_list("pk", flat=True)
    )
    DeploymentAgent.objects.bulk_create(
        [
            DeploymentAgent(
                deployment=deployment,
                agent=agent,
                wave=wave_of[agent.pk],
                counted=counted[agent.pk],
                before_id=before if (before := assignments[agent.pk].bundle_deployment_id) in known else None,
            )
            for agent in agents
        ],
        batch_size=2000,
    )
