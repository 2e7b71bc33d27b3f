"""From approved to active: the bundle built and signed, offered, reported on; each step of its own, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.fleet import services as fleet
from apps.fleet.models import Agent
from apps.releases.models import Approval, Deployment, DeploymentAgent
from apps.releases.services import bundles, rollbacks
from apps.releases.services.deployments import enlist, strategy_of, wake, withdraw_offers
from apps.tenancy.actors import system
from apps.tenancy.services import signing_keys
from apps.tenancy.state import advance, lock
from byteor_cloud import blobs
from byteor_cloud.engine.delivery import bundle as delivery
from byteor_cloud.engine.delivery import credential, dsse
from byteor_cloud.engine.delivery.encoding import canonical
from byteor_cloud.engine.delivery.keys import KeySet
from byteor_cloud.engine.delivery.refusals import ApprovalCode, DeliveryCode, Refused
from byteor_cloud.engine.machines import (
    IN_FLIGHT,
    AgentProgress,
    ApprovalStatus,
    DeploymentEvent,
    DeploymentStatus,
)
from byteor_cloud.engine.rollout import AgentView, Plan, plan_rollback, plan_rollout

WORKER = system("rollout")
_RELATED = ("environment__project__organization", "config_bundle__version")
# These show that the configuration is bad; an abort or a lapsed approval says nothing of it.
_CONDEMNING = {"build_failed", "threshold", "timeout", "rollback_failed"}
_FAILED_BECAUSE: dict[DeliveryCode | ApprovalCode, str] = {
    ApprovalCode.EXPIRED: "approval_expired",
    ApprovalCode.REVOKED: "approval_revoked",
}


def build(deployment_id: str) -> None:
    """Build the deploy bundle and make the first offers. Safe to run twice and to resume after a crash."""
    deployment = _begin_build(deployment_id)
    if deployment is None:
        return
    built = _bundle_of(deployment)
    blobs.put(built.bundle_hash, built.tar)
    _offer_first(deployment, built)


@transaction.atomic
def _begin_build(deployment_id: str) -> Deployment | None:
    """Take the approval's one use and fix what goes into the bundle; None when there is nothing to build."""
    found = Deployment.objects.select_related(*_RELATED, "approval").filter(pk=deployment_id).first()
    if found is None or found.environment.deleted_at or found.environment.project.deleted_at:
        return None
    if found.status == DeploymentStatus.BUILDING:
        return found
    lock(found.environment)
    approval = lock(found.approval) if found.approval else None
    deployment = lock(found, related=_RELATED)
    if deployment.status != DeploymentStatus.APPROVED:
        return None
    ahead = Deployment.objects.filter(
        environment=deployment.environment,
        status__in=[DeploymentStatus.BUILDING, DeploymentStatus.DEPLOYING, DeploymentStatus.ROLLING_BACK],
    ).count()
    if ahead >= deployment.policy["max_in_flight_deployments"]:
        return None  # it waits its turn; the sweep looks again
    if bundles.is_barred(deployment.environment_id, deployment.config_hash):
        _fail(deployment, "known_bad", "The configuration was found bad meanwhile.")
        return None
    if approval is not None:
        try:
            _use_approval(approval, deployment)
        except Refused as refused:
            reason = _FAILED_BECAUSE.get(refused.code, str(refused.code))
            _fail(deployment, reason, refused.detail)
            return None
    keys = signing_keys.key_set(deployment.environment.project.organization_id)
    return advance(deployment, DeploymentEvent.BUILD, actor=WORKER, signing_keys=keys.document())


def _use_approval(approval: Approval, deployment: Deployment) -> None:
    """Check the credential in the contract's order and note its one use. Raises Refused."""
    version = deployment.config_bundle.version
    credential.verify(
        approval.credential or "",
        keyset=signing_keys.key_set(deployment.environment.project.organization_id),
        spec_hash=version.spec_hash,
        environment_id=str(deployment.environment_id),
        at=timezone.now(),
        capabilities=deployment.config_bundle.required_capabilities,
    )
    if approval.status != ApprovalStatus.APPROVED:
        raise Refused(ApprovalCode.REVOKED, f"the approval is {approval.status}")
    target = {k: v for k, v in (approval.target or {}).items() if k not in {"resolved", "count"}}
    bound = (approval.config_hash, target, approval.strategy)
    if bound != (deployment.config_hash, deployment.target, deployment.strategy):
        raise Refused(ApprovalCode.BINDING, "another configuration, target or strategy was approved")
    if approval.used_at is not None:
        raise Refused(ApprovalCode.USED, "the approval has served its one use")
    approval.used_at = timezone.now()
    approval.save(update_fields=["used_at"])


def _bundle_of(deployment: Deployment) -> delivery.BuiltBundle:
    config, environment = deployment.config_bundle, deployment.environment
    about = delivery.ManifestFields(
        org_id=str(environment.project.organization_id),
        project_id=str(environment.project_id),
        environment_id=str(environment.pk),
        deployment_id=str(deployment.pk),
        version_id=str(config.version_id),
        config_bundle_id=str(config.pk),
        posture=environment.posture,
        spec_hash=config.version.spec_hash,
        config_hash=config.config_hash,
        capabilities=tuple(config.required_capabilities),
        created_at=deployment.created_at,
        approved_at=deployment.approved_at,
    )
    return delivery.build(
        about,
        config.version.spec_kv.encode(),
        bundles.runtime_config(config),
        deployment.approval.credential if deployment.approval else None,
        KeySet.parse(canonical(deployment.signing_keys)),
    )


@transaction.atomic
def _offer_first(found: Deployment, built: delivery.BuiltBundle) -> None:
    """Resolve the target again and offer the first wave, in the transaction that says ``deploying``."""
    lock(found.environment)
    deployment = lock(found, related=_RELATED)
    if deployment.status != DeploymentStatus.BUILDING:
        return
    interval = deployment.environment.effective_settings["heartbeat_interval_s"]
    agents = list(_free(deployment, fleet.matching(deployment.environment, deployment.target)).with_state(interval))
    if not agents:
        _fail(deployment, "build_failed", "No agent matches the target any more.")
        return
    online = {a.pk: a.liveness != "offline" for a in agents}
    # With nobody online there is nobody to go by: then everybody counts, rather than calling it done unseen.
    counted = online if any(online.values()) else dict.fromkeys(online, True)
    strategy = strategy_of(deployment)
    wave_of = {a.pk: strategy.wave_of(i, len(agents)) for i, a in enumerate(agents)}
    enlist(deployment, agents, wave_of=wave_of, counted=counted)
    first = min(wave_of.values())
    deployment = advance(
        deployment,
        DeploymentEvent.OFFER,
        actor=WORKER,
        bundle_hash=built.bundle_hash,
        bundle_size=len(built.tar),
        manifest=built.manifest.document(),
        wave=first,
    )
    _offer(deployment, [pk for pk, wave in wave_of.items() if wave == first])
    wake(deployment.pk)


def _offer(deployment: Deployment, agent_ids: Sequence[UUID]) -> None:
    """Offer the deployment's bundle; the caller holds the deployment's lock."""
    if not agent_ids or deployment.bundle_hash is None or deployment.bundle_size is None:
        return
    now = timezone.now()
    fleet.offer(
        agent_ids,
        fleet.Offer(
            deployment_id=deployment.pk,
            bundle_deployment_id=deployment.pk,
            action="activate",
            bundle_hash=deployment.bundle_hash,
            bundle_size=deployment.bundle_size,
            since=now,
        ),
    )
    deployment.agents.filter(agent_id__in=agent_ids).update(
        progress=AgentProgress.OFFERED, offered_at=now, updated_at=now, detail=""
    )


def _fail(deployment: Deployment, reason: str, detail: str) -> Deployment:
    if reason in _CONDEMNING:
        bundles.bar(deployment.environment, deployment.config_hash, reason=f"{reason}: {detail}", actor=WORKER)
    return advance(
        deployment,
        DeploymentEvent.FAIL,
        actor=WORKER,
        reason=reason[:40],
        detail=detail,
        is_current=False,
        changes={"reason": reason, "detail": detail},
    )


@transaction.atomic
def give_up_building(deployment_id: str, error: str) -> None:
    """The build's last attempt failed."""
    deployment = Deployment.objects.filter(pk=deployment_id).first()
    if deployment is not None and deployment.status in {DeploymentStatus.APPROVED, DeploymentStatus.BUILDING}:
        _fail(deployment, "build_failed", error[:2000])


@transaction.atomic
def step(deployment_id: str) -> None:
    """Take the deployment's next step, if there is one now. Safe to run at any time, any number of times."""
    found = Deployment.objects.select_related("environment").filter(pk=deployment_id).first()
    if found is None:
        return
    lock(found.environment)
    deployment = lock(found, related=_RELATED)
    now = timezone.now()
    plan = _plan(deployment, now)
    if plan is not None and plan.timed_out:
        # A report may be on its way: it comes first, and then the plan is another.
        fleet.lock_assignments(plan.timed_out)
        plan = _plan(deployment, now)
    if plan is None:
        return
    _time_out(deployment, plan)
    if deployment.status == DeploymentStatus.DEPLOYING:
        _carry_out(deployment, plan)
    elif plan.outcome == "active":
        rollbacks.finish(deployment, actor=WORKER)
        if deployment.restores is not None:
            _offer_late(deployment.restores)
    elif plan.outcome == "failed":
        _fail(deployment, plan.reason, plan.detail)


def _plan(deployment: Deployment, now: datetime) -> Plan | None:
    rows = deployment.agents.filter(agent__decommissioned_at=None).order_by("agent_id")
    timeout_s = deployment.policy["agent_timeout_s"]
    if deployment.status == DeploymentStatus.DEPLOYING:
        return plan_rollout(
            strategy_of(deployment),
            _views(rows),
            wave=deployment.wave,
            wave_done_at=deployment.wave_done_at,
            paused=deployment.paused_at is not None,
            timeout_s=timeout_s,
            now=now,
        )
    if deployment.status == DeploymentStatus.ROLLING_BACK:
        return plan_rollback(_views(rows.filter(action="rollback")), timeout_s=timeout_s, now=now)
    return None


def _views(rows: QuerySet[DeploymentAgent]) -> list[AgentView]:
    return [AgentView(row.agent_id, row.wave, row.counted, AgentProgress(row.progress), row.offered_at) for row in rows]


def _time_out(deployment: Deployment, plan: Plan) -> None:
    """Give up on agents that did not finish; a later report of theirs is a late one."""
    if plan.timed_out:
        detail = f"did not finish within {deployment.policy['agent_timeout_s']} s"
        fleet.note_timeout(plan.timed_out, deployment_id=deployment.pk, detail=detail)
        deployment.agents.filter(agent_id__in=plan.timed_out).update(
            progress=AgentProgress.FAILED, detail=detail, updated_at=timezone.now()
        )


def _carry_out(deployment: Deployment, plan: Plan) -> None:
    if plan.wave != deployment.wave:
        deployment.wave, deployment.wave_done_at = plan.wave, None
        deployment.save(update_fields=["wave", "wave_done_at"])
    elif plan.wave_done and deployment.wave_done_at is None:
        deployment.wave_done_at = timezone.now()
        deployment.save(update_fields=["wave_done_at"])
    _offer(deployment, list(plan.offer))
    if plan.outcome == "active":
        _activate(deployment)
    elif plan.outcome == "failed":
        failed = _fail(deployment, plan.reason, plan.detail)
        if not (
            deployment.strategy["auto_rollback"]
            and rollbacks.start_if_possible(failed, reason=plan.detail, actor=WORKER)
        ):
            withdraw_offers(failed)


def _activate(deployment: Deployment) -> None:
    previous = (
        Deployment.objects.filter(environment=deployment.environment, pipeline=deployment.pipeline, is_current=True)
        .exclude(pk=deployment.pk)
        .select_for_update(no_key=True)
        .first()
    )
    if previous is not None:
        previous.is_current, previous.superseded_by = False, deployment
        previous.save(update_fields=["is_current", "superseded_by"])
    current = advance(deployment, DeploymentEvent.ACTIVATE, actor=WORKER, is_current=True, activated_at=timezone.now())
    _offer_late(current)


def _free(deployment: Deployment, agents: Any) -> Any:
    """Those of ``agents`` that the deployment may have: without take_over, none that is to run another pipeline."""
    if deployment.take_over:
        return agents
    others = Deployment.objects.filter(environment=deployment.environment).exclude(pipeline=deployment.pipeline)
    return agents.exclude(assignment__bundle_deployment_id__in=others.values("pk"))


def _offer_late(deployment: Deployment, *, only: UUID | None = None) -> None:
    """Offer to agents that came to match after the start; they do not count for waves and thresholds.

    Not to those that another deployment is about to change, and nobody is offered what is known bad.
    """
    if bundles.is_barred(deployment.environment_id, deployment.config_hash):
        return
    busy = Deployment.objects.filter(environment=deployment.environment, status__in=IN_FLIGHT)
    agents = (
        _free(deployment, fleet.matching(deployment.environment, deployment.target))
        .exclude(pk__in=deployment.agents.values("agent_id"))
        .exclude(assignment__bundle_deployment_id=deployment.pk)
        .exclude(assignment__deployment_id__in=busy.values("pk"))
    )
    if only is not None:
        agents = agents.filter(pk=only)
    ids = [agent.pk for agent in agents]
    enlist(
        deployment,
        list(agents),
        wave_of=dict.fromkeys(ids, deployment.wave),
        counted=dict.fromkeys(ids, False),
    )
    _offer(deployment, ids)


@transaction.atomic
def welcome(agent_id: str) -> None:
    """Offer a late joiner what runs in its environment: the newest current deployment whose target matches it."""
    agent = Agent.objects.enrolled().select_related("environment").filter(pk=agent_id).first()
    if agent is None:
        return
    lock(agent.environment)
    for deployment in Deployment.objects.filter(environment=agent.environment, is_current=True).order_by("-id"):
        if fleet.matching(agent.environment, deployment.target).filter(pk=agent.pk).exists():
            _offer_late(deployment, only=agent.pk)
            return


def agent_left(agent_id: str) -> None:
    """Step the rollouts that may have waited for the agent."""
    running = DeploymentAgent.objects.filter(
        agent_id=agent_id,
        deployment__status__in=[DeploymentStatus.DEPLOYING, DeploymentStatus.ROLLING_BACK],
    )
    for deployment_id in running.values_list("deployment_id", flat=True):
        wake(deployment_id)


def envelope(deployment: Deployment) -> dict[str, Any]:
    """The bundle's DSSE envelope, signed now with the key that is active now; the tar stays as it was built."""
    manifest = delivery.Manifest.from_document(deployment.manifest)
    organization_id = deployment.environment.project.organization_id
    return dsse.sign_envelope(deployment.bundle_hash or "", manifest, signing_keys.active_private_key(organization_id))
