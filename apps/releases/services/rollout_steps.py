"""Rollout steps, which carry out the step plans of ``engine.rollout``, and the signatures of bundles' envelopes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.utils import timezone

from apps.releases.models import Approval, Deployment, DeploymentAgent
from apps.releases.services import (
    acceptances,
    admission,
    assignments,
    bundles,
    failures,
    progress,
    rollbacks,
    wave_holds,
)
from apps.releases.services.deployment_jobs import enqueue_rollout_step
from apps.releases.services.deployments import RELATED, WORKER, fail
from apps.releases.services.timeline import WAVE_STARTED, add_entry, advance_deployment, record_event
from apps.releases.services.wave_holds import WAVE_DENIED
from apps.tenancy.actors import Actor
from apps.tenancy.services import signing_keys
from apps.tenancy.services.state import lock_row
from byteor.engine.machines import (
    FINISHED,
    AgentProgress,
    ApprovalStatus,
    DeploymentEvent,
    DeploymentStatus,
    OfferAction,
)
from byteor.engine.rollout import RolloutAgent, StepPlan, plan_rollback, plan_rollout
from byteor.engine.signing import bundle as deploy_bundle
from byteor.engine.signing import dsse
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.errors import Conflict, NotStored, Unavailable
from byteor_cloud.storage import blobs

logger = structlog.get_logger(__name__)

_PROGRESS = {progress.value: progress for progress in AgentProgress}
_RUNNING = {DeploymentStatus.DEPLOYING, DeploymentStatus.ROLLING_BACK}
# The sweep enqueues a step of every rollout every 5 s. Without an outage, steps update ``served_at`` at most that
# often. A much longer pause counts as an outage.
_SERVED_AT_EVERY, _OUTAGE = timedelta(seconds=5), timedelta(seconds=60)
_UNFINISHED = (AgentProgress.OFFERED, AgentProgress.DOWNLOADING, AgentProgress.ACTIVATING)
_found = CompiledQuery(lambda pk: Deployment.objects.select_related("environment", "restores").filter(pk=pk), UUID)


def run_step(deployment_id: str) -> None:
    """Run the deployment's next step, if there is one now. Safe to run at any time, any number of times."""
    found = _found.first(UUID(deployment_id))
    if found is None:
        return
    is_served = _is_bundle_available(found)  # before any lock, because the storage may be slow
    with transaction.atomic():
        lock_row(found.environment)
        deployment = lock_row(found, related=RELATED)
        now = timezone.now()
        if deployment.status in _RUNNING and assignments.is_held(deployment):
            # Agents do not get these offers, so their timeouts are suspended.
            if deployment.served_at is not None:
                deployment.served_at = None
                deployment.save(update_fields=["served_at"])
            return
        if deployment.status in _RUNNING:
            _track_outage(deployment, now, is_served=is_served)
        if deployment.status == DeploymentStatus.DEPLOYING:
            if bundles.is_known_bad(deployment.environment_id, deployment.config_hash):
                failures.note_in_timeline(deployment)
                # Another deployment made the configuration known bad, so no further agent may get it.
                _fail_rollout(deployment, "known_bad", "The configuration has become known bad.")
                return
            assignments.enlist(deployment)
        approval = wave_holds.find_approval(deployment)
        if approval is not None and approval.status == ApprovalStatus.DENIED:
            failures.note_in_timeline(deployment)
            _fail_rollout(deployment, WAVE_DENIED, _describe_denial(approval))
            return
        plan = _plan(deployment, now)
        if plan is not None and plan.timed_out:
            # A report may be in the middle of its transaction. Wait for the report, and plan again.
            assignments.lock_assignments(plan.timed_out)
            plan = _plan(deployment, now)
        if plan is not None and plan.timed_out:
            assignments.time_out(deployment, plan.timed_out)
        failures.note_in_timeline(deployment)
        if plan is None:
            return
        if deployment.status == DeploymentStatus.DEPLOYING:
            _apply_plan(deployment, plan)
        elif plan.outcome == "active":
            restored = rollbacks.finish(deployment, actor=WORKER)
            if restored is not None:
                assignments.offer_late(restored)
        elif plan.outcome == "failed":
            fail(deployment, plan.reason, plan.detail)


def _describe_denial(approval: Approval) -> str:
    wave = 0 if approval.wave is None else approval.wave + 1
    denial = approval.decisions.filter(decision="deny").first()
    return f"wave {wave} was denied" if denial is None else f"{denial.decided_by} denied wave {wave}: {denial.comment}"


@transaction.atomic
def start_next_wave(found: Deployment, *, reason: str = "", actor: Actor) -> None:
    """Start the next wave now, without waiting for the pause between the waves or for a manual hold.

    Raises Conflict as ``check_next_wave`` does, in a freeze window that the deployment does not override, and if the
    configuration is known bad, an agent of a wave that has started has not finished, too many agents have failed, the
    next wave needs an approval that covers what the earlier waves have done until now, there is no next wave, or no
    counted agents remain.
    """
    environment = lock_row(found.environment, related=("project__organization",))
    deployment = lock_row(found, related=RELATED)
    check_next_wave(deployment)
    admission.check_known_bad(environment, deployment.config_bundle)
    admission.check_freeze(
        environment, {"reason": deployment.freeze_override} if deployment.freeze_override else None, may_override=True
    )
    plan = _plan(deployment, timezone.now(), is_started=True)
    if plan is None or plan.timed_out or plan.outcome is not None or plan.wave == deployment.wave:
        detail = (
            "The next wave cannot start. Either there is none, or it needs approval, or an agent of a wave that has "
            "started has not finished, or too many agents have failed, or no counted agents remain."
        )
        raise Conflict(detail, code="next_wave.not_ready")
    record_event(deployment, "next_wave", {"wave": plan.wave + 1, "reason": reason}, actor=actor)
    _apply_plan(deployment, plan)


def check_next_wave(deployment: Deployment) -> None:
    """Raise Conflict if the deployment's state shows that the next wave cannot start now.

    Does not check freeze windows and the known bad state. Does not read the agents either: the last step stored whether
    all waves that have started have finished.
    """
    if deployment.status != DeploymentStatus.DEPLOYING:
        detail = f"The deployment is {deployment.status}. Only a deploying deployment has a next wave."
        raise Conflict(detail, code="next_wave.not_deploying")
    if deployment.paused_at is not None:
        raise Conflict("The deployment is paused. Resume it first.", code="next_wave.paused")
    approval = wave_holds.find_approval(deployment)
    if approval is not None and approval.status != ApprovalStatus.APPROVED:
        detail = "The next wave needs approval, and it is not approved."
        raise Conflict(detail, code="next_wave.needs_approval")
    if deployment.wave_done_at is None or deployment.wave + 1 >= len(deployment.strategy.percents):
        detail = "A wave that has started has not finished, or there is no next wave."
        raise Conflict(detail, code="next_wave.not_ready")


def _is_bundle_available(deployment: Deployment) -> bool:
    """Return False if the blob store cannot serve the rollout's bundle or, in a rollback, the restored deployment's."""
    source = deployment.restores if deployment.status == DeploymentStatus.ROLLING_BACK else deployment
    if deployment.status not in _RUNNING or source is None or source.bundle_hash is None:
        return True
    try:
        blobs.check_readable(source.bundle_hash)
    except (OSError, NotStored, Unavailable) as error:
        logger.warning("bundle_not_served", deployment=str(deployment.pk), error=repr(error))
        return False
    return True


def _track_outage(deployment: Deployment, now: datetime, *, is_served: bool) -> None:
    """Suspend agent timeouts while agents cannot download the bundle, and restart them after an outage.

    A long pause between two steps also counts as an outage: the worker or the database was probably down.
    """
    before, checked_at = deployment.served_at, _system_time()
    if not is_served:
        if before is not None:
            deployment.served_at = None
            deployment.save(update_fields=["served_at"])
    elif before is None or checked_at - before > _OUTAGE:
        deployment.served_at, deployment.timeouts_from = checked_at, now
        deployment.save(update_fields=["served_at", "timeouts_from"])
    elif checked_at - before >= _SERVED_AT_EVERY:
        deployment.served_at = checked_at
        deployment.save(update_fields=["served_at"])


def _system_time() -> datetime:
    """Return the system clock's time, with which pauses between steps are measured."""
    return datetime.now(UTC)


def _plan(deployment: Deployment, now: datetime, *, is_started: bool = False) -> StepPlan | None:
    # Leave out unfinished agents that have another offer now: the rollback of another deployment may have moved them.
    moved = Q(progress__in=_UNFINISHED) & ~Q(agent__assignment__deployment_id=deployment.pk)
    rows = deployment.agents.filter(agent__decommissioned_at=None).exclude(moved)
    # Leave out pending agents that are drained: they get no offer, and nothing waits for them.
    rows = rows.exclude(progress=AgentProgress.PENDING, agent__drained_at__isnull=False)
    if not deployment.take_over:
        # Leave out pending agents that were assigned to another pipeline after they were enlisted.
        others = Deployment.objects.filter(environment=deployment.environment).exclude(pipeline=deployment.pipeline)
        elsewhere = Q(agent__assignment__bundle_deployment_id__in=others.values("pk"))
        rows = rows.exclude(Q(progress=AgentProgress.PENDING) & elsewhere)
    timeout_s = deployment.policy.agent_timeout_s
    if deployment.status == DeploymentStatus.DEPLOYING:
        return plan_rollout(
            deployment.strategy,
            _rollout_agents(deployment, rows),
            wave=deployment.wave,
            wave_done_at=deployment.wave_done_at,
            paused=deployment.paused_at is not None,
            complete=deployment.enlisting is None,
            unavailable=_pending_waves(deployment) if deployment.strategy.holds else (),
            released=wave_holds.find_released(deployment),
            is_started=is_started,
            timeout_s=timeout_s,
            now=now,
        )
    if deployment.status == DeploymentStatus.ROLLING_BACK:
        return plan_rollback(
            _rollout_agents(deployment, rows.filter(action=OfferAction.ROLLBACK)), timeout_s=timeout_s, now=now
        )
    return None


def _pending_waves(deployment: Deployment) -> set[int]:
    """Return the waves with agents that have no offer, including agents that are not available now."""
    rows = deployment.agents.filter(progress=AgentProgress.PENDING, agent__decommissioned_at=None)
    return set(rows.order_by().values_list("wave", flat=True).distinct())


def _rollout_agents(deployment: Deployment, rows: QuerySet[DeploymentAgent]) -> list[RolloutAgent]:
    def timed_from(offered_at: datetime | None) -> datetime | None:
        """Return the start of the agent's timeout, or None without an offer or while timeouts are suspended."""
        if deployment.served_at is None or offered_at is None:
            return None
        return deployment.timed_from(offered_at)

    # A drained agent may be switched off. It may finish its offer, but the rollout does not wait for the agent.
    is_awaited = Q(counted=True) & (Q(agent__drained_at=None) | Q(progress__in=FINISHED))
    columns = rows.order_by().values_list(
        "agent_id", "wave", ExpressionWrapper(is_awaited, BooleanField()), "progress", "offered_at"
    )
    return [
        RolloutAgent(agent_id, wave, counted, _PROGRESS[progress], timed_from(offered_at))
        for agent_id, wave, counted, progress, offered_at in columns
    ]


def _apply_plan(deployment: Deployment, plan: StepPlan) -> None:
    if plan.hold is not None:
        wave_holds.keep(deployment, plan)
    elif plan.wave != deployment.wave and deployment.wave_hold is not None:
        wave_holds.use(deployment, plan.wave)
    elif not plan.wave_done or plan.outcome is not None or not wave_holds.find_released(deployment):
        # An agent of a wave that has started has not finished, the next wave has changed, or the rollout ends.
        wave_holds.lift(deployment, actor=WORKER)
    is_empty_wave = plan.wave != deployment.wave and not plan.offer
    if plan.wave != deployment.wave:
        deployment.wave, deployment.wave_done_at = plan.wave, None
        deployment.save(update_fields=["wave", "wave_done_at"])
        detail = {"wave": plan.wave + 1, "agents": _count_offers(deployment, plan)}
        add_entry(deployment, WAVE_STARTED, actor=WORKER, detail=detail)
    elif plan.wave_done and deployment.wave_done_at is None:
        deployment.wave_done_at = timezone.now()
        deployment.save(update_fields=["wave_done_at"])
    assignments.offer(deployment, plan.offer)
    if plan.outcome == "active":
        _activate(deployment)
    elif plan.outcome == "failed":
        _fail_rollout(deployment, plan.reason, plan.detail)
    elif plan.has_more_offers or deployment.enlisting is not None or is_empty_wave:
        # To avoid deadlocks, enqueue last, as reports do: they lock their assignment before they enqueue a step.
        enqueue_rollout_step(deployment.pk)


def _count_offers(deployment: Deployment, plan: StepPlan) -> int:
    """Return how many agents are offered the deployment in the wave that starts, in this step and in the next ones.

    If offers remain for later steps, this counts all pending agents of the waves up to the one that starts, including
    agents that are not available.
    """
    if not plan.has_more_offers:
        return len(plan.offer)
    by_wave = progress.count_agents(deployment).by_wave
    return sum(n for (wave, word), n in by_wave.items() if wave <= plan.wave and word == AgentProgress.PENDING)


def _fail_rollout(deployment: Deployment, reason: str, detail: str) -> None:
    """Fail a rollout. If counted agents remain and the strategy requires a rollback, start it if possible.

    If no rollback starts, withdraw the offers that agents have not started. A denied wave does not make the
    configuration known bad.
    """
    failed = fail(deployment, reason, detail)
    # An empty target is not the configuration's fault, but a rollback would make the configuration known bad.
    is_bad = reason != WAVE_DENIED
    must_roll_back = deployment.strategy.auto_rollback and reason != "empty_target"
    if not (must_roll_back and rollbacks.start_if_possible(failed, reason=detail, is_bad=is_bad, actor=WORKER)):
        assignments.withdraw(failed)


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
    current = advance_deployment(
        deployment, DeploymentEvent.ACTIVATE, actor=WORKER, is_current=True, paused_at=None, activated_at=timezone.now()
    )
    acceptances.end_of(current)
    assignments.offer_late(current)


def sign_deployment_envelope(deployment: Deployment) -> dict[str, Any]:
    """Return the bundle's DSSE envelope, signed with the key that is active now. The stored tar does not change."""
    return sign_deployment_envelopes([deployment])[deployment.pk]


def sign_deployment_envelopes(deployments: Iterable[Deployment]) -> dict[UUID, dict[str, Any]]:
    """Return the envelope of each deployment's bundle, by deployment id."""
    by_organization: dict[UUID, list[Deployment]] = {}
    for deployment in deployments:
        by_organization.setdefault(deployment.environment.project.organization_id, []).append(deployment)
    envelopes: dict[UUID, dict[str, Any]] = {}
    for organization_id, own in by_organization.items():
        private_key = signing_keys.active_private_key(organization_id)
        for deployment in own:
            manifest = deploy_bundle.Manifest.from_document(deployment.manifest)
            envelopes[deployment.pk] = dsse.sign_envelope(deployment.bundle_hash or "", manifest, private_key)
    return envelopes
