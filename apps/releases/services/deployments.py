"""Create, pause, resume, abort, fail and retry deployments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.fleet.services.selection import select_agents, unnest_ids
from apps.releases.models import Approval, ConfigBundle, Deployment, KnownBad
from apps.releases.services import (
    admission,
    approvals,
    assignments,
    blockers,
    bundles,
    failures,
    replay_gate,
    reviewers,
    wave_holds,
)
from apps.releases.services.deployment_jobs import enqueue_build, enqueue_rollout_step
from apps.releases.services.timeline import advance_deployment, record_event
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import Environment
from apps.tenancy.services.state import check_transition, lock_row
from apps.tenancy.services.tokens import person_behind
from byteor.engine.break_glass import BreakGlass, BreakGlassRequest
from byteor.engine.canonical import format_time
from byteor.engine.machines import (
    UNDER_WAY,
    AgentProgress,
    ApprovalStatus,
    DeploymentEvent,
    DeploymentStatus,
)
from byteor.engine.rollout import Strategy
from byteor.engine.target import Target
from byteor_cloud.database.together import read_together
from byteor_cloud.errors import Conflict, InvalidInput

WORKER = system_actor("rollout")
RELATED = ("environment__project__organization", "config_bundle__version")
# Failures that make the configuration known bad. An abort or an expired approval is not the configuration's fault.
_BARRING_REASONS = {"threshold", "timeout", "rollback_failed"}


@transaction.atomic
def create_deployment(
    *,
    environment: Environment,
    config_bundle: ConfigBundle,
    target: Target,
    strategy: Strategy,
    note: str = "",
    take_over: bool = False,
    approval: str | None = None,
    override_freeze: Mapping[str, str] | None = None,
    override_replay_gate: Mapping[str, str] | None = None,
    explain: Sequence[Mapping[str, str]] = (),
    break_glass: BreakGlassRequest | None = None,
    start_at: datetime | None = None,
    reviewer_ids: Sequence[UUID] | None = None,
    is_org_admin: bool = False,
    actor: Actor,
) -> Deployment:
    """Create a deployment. It waits for approval if the environment requires one. Otherwise its build is enqueued.

    Unless the replay gate is off, the deployment's regression is requested as well. ``explain`` are the requester's
    explanations of differences: the id of each group, and a text.

    The deployment does not start before ``start_at``. Only ``reviewer_ids`` may decide on its approvals; by default the
    environment's reviewers. If there are none, everybody who may operate the environment may decide.

    The build is also enqueued with ``approval``, the credential of an unused approval of the same subject, and with
    ``break_glass``. After break-glass, another person must approve the deployment in time. Otherwise it is
    rolled back, if possible.

    Raises Conflict if a freeze window, a known bad configuration, the in-flight limit, the limit of scheduled
    deployments, another pipeline on the agents or the state of the approval prevents the deployment; QuotaExceeded;
    InvalidInput for an invalid target, credential, start time, list of reviewers or break-glass request; Forbidden if
    the caller may not override a freeze window or the replay gate, use break-glass, or use or request the approval.
    """
    locked = lock_row(environment, related=("project__organization",))
    policy = locked.effective_settings.release
    admission.check_start_at(start_at, break_glass)
    admission.check_freeze(locked, override_freeze, may_override=is_org_admin, at=start_at)
    admission.check_gate_override(override_replay_gate, may_override=is_org_admin)
    admission.check_break_glass(policy, break_glass, approval, is_org_admin, actor)
    admission.check_known_bad(locked, config_bundle)
    if start_at is None:
        admission.check_in_flight(locked, policy.max_in_flight_deployments)
    else:  # until its start time, a deployment is not in flight
        admission.check_scheduled(locked)
    admission.check_quota(locked, config_bundle)
    agents = select_agents(locked, target)
    count = admission.check_target(locked, target, agents)
    if not take_over:
        admission.check_other_pipelines(locked, agents, config_bundle.version.name)
    requester = approvals.requester_of(actor) if strategy.needs_approval else person_behind(actor)
    chosen = reviewers.choose(
        locked,
        reviewer_ids,
        policy=policy,
        is_needed=policy.approvals_required or strategy.needs_approval,
        may_decide_own=policy.allow_self_approval and break_glass is None,
        requester=requester,
        may_loosen=is_org_admin,
    )
    fields: dict[str, Any] = {
        "environment": locked,
        "config_bundle": config_bundle,
        "pipeline": config_bundle.version.name,
        "config_hash": config_bundle.config_hash,
        "target": target,
        "target_count": count,
        "strategy": strategy,
        "policy": policy,
        "take_over": take_over,
        "requested_by": actor.display,
        "requester_id": requester,
        "start_at": start_at,
        "reviewers": chosen,
        "note": note,
        "freeze_override": override_freeze["reason"] if override_freeze else "",
        "replay_gate_override": override_replay_gate["reason"] if override_replay_gate else "",
        "explain": [dict(each) for each in explain],
    }
    is_needed, subject = policy.approvals_required, Deployment(**fields).subject
    handed_in = requested = None
    if approval is not None:
        handed_in = approvals.check_submitted_credential(
            approval, locked, subject, policy=policy, is_needed=is_needed, actor=actor
        )
    elif is_needed:
        requested = approvals.request_approval(
            environment=locked,
            policy=policy,
            subject=subject,
            resolved=[str(pk) for pk in agents.values_list("pk", flat=True)[:1000]],
            count=count,
            break_glass_s=(break_glass.expires_in_s or policy.approval_ttl_s) if break_glass else None,
            start_at=start_at,
            actor=actor,
        )
    if handed_in is not None and start_at is not None and handed_in.expires_at <= start_at:
        raise Conflict(
            "The approval expires before the deployment starts. Request another approval.", code="approval.expired"
        )
    must_wait = requested is not None and not break_glass
    status = DeploymentStatus.PENDING_APPROVAL if must_wait else DeploymentStatus.APPROVED
    deployment = Deployment(
        **fields,
        status=status,
        approval=requested,
        handed_in=handed_in,
        approved_at=timezone.now().replace(microsecond=0) if handed_in else None,
        break_glass=_break_glass_record(break_glass, requested, actor),
    )
    if replay_gate.is_tested(deployment):
        replay_gate.request_test(deployment, actor=actor)
    deployment.save(force_insert=True)
    changes = {
        "status": [None, status],
        "config_hash": [None, config_bundle.config_hash],
        "targets": [None, count],
        **({"override_freeze": override_freeze["reason"]} if override_freeze else {}),
        **({"override_replay_gate": override_replay_gate["reason"]} if override_replay_gate else {}),
        **({"break_glass": break_glass.reason} if break_glass else {}),
        **({"start_at": format_time(start_at)} if start_at else {}),
        **({"reviewers": chosen} if chosen else {}),
        **({"regression": str(deployment.regression_id)} if deployment.regression_id else {}),
        **({"approval": str(handed_in.pk)} if handed_in else {}),
    }
    record_event(deployment, "create", changes, actor=actor)
    if not must_wait:
        enqueue_build(deployment.pk)
    return deployment


def _break_glass_record(
    break_glass: BreakGlassRequest | None, requested: Approval | None, actor: Actor
) -> BreakGlass | None:
    if break_glass is None or requested is None:
        return None
    return BreakGlass(actor.display, break_glass.reason, str(actor.user_id), requested.expires_at)


@transaction.atomic
def abort(deployment: Deployment, *, reason: str = "", actor: Actor) -> Deployment:
    """Stop a deployment: set it to ``failed`` with the reason ``aborted``. Agents that run its bundle keep running it.

    Offers that agents have not started are withdrawn. Agents may still finish the others. A pending approval is
    revoked, as is the approval of the next wave. An issued credential that was not used can be used for another
    deployment with the same subject. A pending approval of a break-glass deployment stays pending: if nobody approves,
    the agents that run the deployment are rolled back, if possible. Raises Conflict if the deployment's status does not
    permit an abort, or if its next wave was denied.
    """
    lock_row(deployment.environment)  # because a concurrent rollback must see the changed assignments
    if deployment.approval is not None:
        # Lock the approval before the deployment, because the lock order must be the same everywhere.
        approval = lock_row(deployment.approval)
        if approval.status == ApprovalStatus.PENDING and not approval.break_glass:
            approvals.withdraw(approval, actor=actor)
    locked = lock_row(deployment)
    check_transition(locked, DeploymentEvent.ABORT)
    wave_holds.check_not_denied(locked)
    failures.note_in_timeline(locked)
    wave_holds.lift(locked, actor=actor)
    aborted = advance_deployment(
        locked,
        DeploymentEvent.ABORT,
        actor=actor,
        reason="aborted",
        detail=reason,
        paused_at=None,
        changes={"reason": reason},
    )
    assignments.withdraw(aborted)
    return aborted


def fail(deployment: Deployment, reason: str, detail: str) -> Deployment:
    """Set a deployment to failed, with the worker as actor.

    Some reasons make its configuration known bad, unless the deployment had failed because a wave was denied.
    """
    wave_holds.lift(deployment, actor=WORKER)
    if reason in _BARRING_REASONS and deployment.reason != wave_holds.WAVE_DENIED:
        bundles.mark_known_bad(
            deployment.environment, deployment.config_hash, reason=f"{reason}: {detail}", actor=WORKER
        )
    return advance_deployment(
        deployment,
        DeploymentEvent.FAIL,
        actor=WORKER,
        reason=reason[:40],
        detail=detail,
        is_current=False,
        paused_at=None,
        changes={"reason": reason, "detail": detail},
    )


@transaction.atomic
def retry(found: Deployment, *, agents: Collection[UUID] | None = None, reason: str = "", actor: Actor) -> Deployment:
    """Offer a deployment again to all failed agents that can be retried, or only to those listed in ``agents``.

    A failed deployment becomes ``deploying`` and continues. A deployment that is ``deploying``, or active and current,
    keeps its status.

    Raises InvalidInput if one of ``agents`` is not in the deployment. Raises Conflict if there is nothing to retry: no
    agent can be retried, and the deployment itself has not failed or has no agents left. Raises Conflict if one of
    ``agents`` cannot be retried (it did not fail, is drained or decommissioned, or has another offer), or if retrying
    only ``agents`` of a failed deployment would leave its wave over the failure threshold. Raises Conflict if a wave
    was denied, if the deployment was never offered or was superseded, if its rollback was started, or if its
    configuration is known bad. A deployment that is not ``deploying`` is also refused in a freeze window, if its
    approval after break-glass was denied, expired or revoked, and while another deployment of its pipeline or with its
    agents is under way. A failed deployment is also refused at the in-flight limit, and if a newer deployment of its
    pipeline was offered or is being built.
    """
    lock_row(found.environment)
    deployment = lock_row(found, related=RELATED)
    has_failed = deployment.status == DeploymentStatus.FAILED
    agent_ids = check_retry(deployment, agents=agents)
    failures.note_in_timeline(deployment)
    wave_holds.lift(deployment, actor=actor)
    deployment = advance_deployment(
        deployment,
        DeploymentEvent.RETRY,
        actor=actor,
        reason="",
        detail="",
        wave_done_at=None,
        changes={"reason": reason, "agents": len(agent_ids)},
    )
    assignments.offer_again(deployment, agent_ids, renew_all=has_failed)
    enqueue_rollout_step(deployment.pk)
    return deployment


def check_retry(
    deployment: Deployment, *, agents: Collection[UUID] | None = None, most: int | None = None
) -> list[UUID]:
    """Return the ids of the agents to retry. Raises the errors that ``retry`` would.

    Without ``agents``, ``most`` limits the number of ids.
    """
    if deployment.status == DeploymentStatus.ACTIVE and not deployment.is_current:
        detail = "The deployment is active, but another deployment superseded it. Retry that deployment instead."
        raise Conflict(detail, code="not_current")
    check_transition(deployment, DeploymentEvent.RETRY)
    wave_holds.check_not_denied(deployment)
    has_failed = deployment.status == DeploymentStatus.FAILED
    has_ended = deployment.status != DeploymentStatus.DEPLOYING
    under_way = Deployment.objects.filter(environment=deployment.environment_id, status__in=UNDER_WAY)
    mine = deployment.agents.filter(agent__decommissioned_at=None)
    failed = mine.filter(
        progress=AgentProgress.FAILED, agent__assignment__deployment_id=deployment.pk, agent__drained_at=None
    )
    newer, others, bad, agent_ids = read_together(
        _newer_deployments(deployment).values("pk")[:1] if has_failed else Deployment.objects.none(),
        under_way.only("pipeline", "target") if has_ended else under_way.none(),
        KnownBad.objects.filter(environment=deployment.environment_id, config_hash=deployment.config_hash).values("pk"),
        failed.order_by("agent_id").values_list("agent_id", flat=True)[:most],
    )
    if has_failed:
        _check_retry_of_failed(deployment, deployment.environment, has_newer=bool(newer))
    if has_ended:
        _check_retry_of_ended(deployment, deployment.environment, others)
    if bad:
        detail = (
            f"The deployment is {deployment.status}, and its configuration is known bad in this environment. "
            "Clear the known-bad state first."
        )
        raise Conflict(detail, code="known_bad")
    if agents is not None:
        _check_named(deployment, agents, set(agent_ids))
        return sorted(set(agents))
    if not agent_ids and not (has_failed and mine.exists()):
        detail = f"The deployment is {deployment.status}, and it has no failed agents that can be retried."
        raise Conflict(detail, code="nothing_to_retry")
    return agent_ids


def _check_named(deployment: Deployment, agents: Collection[UUID], failed: set[UUID]) -> None:
    """Raise InvalidInput or Conflict unless all ``agents`` are in ``failed`` and retrying only them can succeed."""
    enlisted = deployment.agents.filter(agent_id__in=unnest_ids(agents)).values_list("agent_id", flat=True)
    if unknown := sorted(set(agents) - set(enlisted)):
        raise InvalidInput.at("/agents", f"The deployment has no such agents: {_name(unknown)}.")
    if others := sorted(set(agents) - failed):
        raise Conflict(
            f"The deployment is {deployment.status}, and these agents cannot be retried, because they did not "
            f"fail, are drained or decommissioned, or have another offer: {_name(others)}.",
            code="not_failed",
        )
    if deployment.status != DeploymentStatus.FAILED:
        return
    wave = deployment.agents.filter(counted=True, wave=deployment.wave, agent__decommissioned_at=None)
    left = wave.filter(progress=AgentProgress.FAILED).exclude(agent_id__in=unnest_ids(agents)).count()
    if left * 100 > deployment.strategy.failure_threshold_percent * wave.count():
        raise Conflict(
            f"The deployment has failed, and would immediately fail again, because too many other agents of wave "
            f"{deployment.wave + 1} failed ({left}). Retry all failed agents.",
            code="others_failed",
        )


def _name(agent_ids: Sequence[UUID]) -> str:
    shown = ", ".join(str(agent_id) for agent_id in agent_ids[:5])
    return f"{shown} and {len(agent_ids) - 5} more" if len(agent_ids) > 5 else shown


def _newer_deployments(deployment: Deployment) -> QuerySet[Deployment]:
    """Return the later deployments of the pipeline that were offered to agents or are being built."""
    return Deployment.objects.filter(
        Q(bundle_hash__isnull=False) | Q(status=DeploymentStatus.BUILDING),
        environment=deployment.environment_id,
        pipeline=deployment.pipeline,
        pk__gt=deployment.pk,
    )


def _check_retry_of_failed(deployment: Deployment, environment: Environment, *, has_newer: bool) -> None:
    if deployment.bundle_hash is None:
        raise Conflict(
            "The deployment failed before it was offered to an agent. Create a new deployment.",
            code="never_offered",
        )
    if deployment.rollback_reason:
        raise Conflict(
            "The rollback of the deployment failed. Roll the deployment back again.",
            code="was_rolled_back",
        )
    admission.check_in_flight(environment, deployment.policy.max_in_flight_deployments)
    if has_newer:
        raise Conflict(
            "The deployment failed, and its pipeline has a newer deployment. Create a new deployment instead.",
            code="newer_deployment",
        )


def _check_retry_of_ended(deployment: Deployment, environment: Environment, under_way: Iterable[Deployment]) -> None:
    unapproved = Deployment.objects.filter(assignments.UNAPPROVED_BREAK_GLASS, pk=deployment.pk)
    if deployment.break_glass is not None and unapproved.exists():
        raise Conflict(
            f"The deployment is {deployment.status}, and it was not approved after break-glass.", code="not_approved"
        )
    admission.check_freeze(environment, None, may_override=False)
    if blockers.overlaps(deployment, under_way):
        raise Conflict(
            f"The deployment is {deployment.status}, and another deployment of its pipeline or with some of its "
            "agents is under way. Wait until that deployment has finished.",
            code="agents_busy",
        )


@transaction.atomic
def set_paused(deployment: Deployment, *, paused: bool, reason: str = "", actor: Actor) -> Deployment:
    """Pause or resume a deployment. The status stays ``deploying``. Raises Conflict as ``check_set_paused`` does.

    After a restore, resuming a deployment also resumes its offers.
    """
    lock_row(deployment.environment)
    locked = lock_row(deployment, related=("environment__project",))
    check_set_paused(locked, paused=paused)
    if not paused:
        wave_holds.resume_clock(locked)
        assignments.resume(assignments.held(locked.environment_id).filter(deployment_id=locked.pk))
    locked.paused_at = timezone.now() if paused else None
    locked.save(update_fields=["paused_at"])
    record_event(locked, "pause" if paused else "resume", {"reason": reason}, actor=actor)
    enqueue_rollout_step(locked.pk)
    return locked


def check_set_paused(deployment: Deployment, *, paused: bool) -> None:
    """Raise Conflict unless the deployment is ``deploying`` and can be paused or resumed now."""
    if deployment.status != DeploymentStatus.DEPLOYING:
        raise Conflict(f"The deployment is {deployment.status}. Only a deploying deployment can be paused or resumed.")
    if (deployment.paused_at is not None) is paused:
        raise Conflict("The deployment is already paused." if paused else "The deployment is not paused.")
