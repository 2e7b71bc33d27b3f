"""The functions that run this app's jobs. Each calls services and is safe to run twice."""

from __future__ import annotations

from django.db.models import Q
from django.utils import timezone

from apps.fleet.jobs import AgentLeft, WelcomeAgent, WelcomeAgents
from apps.releases.jobs import (
    DELETE_OLD_DETAILS,
    RENEW_TESTS,
    SUM_PROGRESS,
    SWEEP,
    BuildBundle,
    OfferAfterHold,
    StepRollout,
    UndoBreakGlass,
)
from apps.releases.models import Approval, Deployment
from apps.releases.services import (
    approvals,
    builds,
    deployment_jobs,
    deployments,
    housekeeping,
    late_joiners,
    progress,
    replay_gate,
    rollbacks,
    rollout_steps,
)
from byteor.engine.machines import IN_FLIGHT, ApprovalStatus, DeploymentStatus
from byteor_cloud.database.large_columns import without_large
from byteor_cloud.worker.jobs import Claim, GivenUp, runs, runs_claimed, runs_periodically


def _build_given_up(why: GivenUp, job: BuildBundle) -> None:
    # A killed job does not show that the build is impossible, so the deployment waits until a person retries the dead
    # letter.
    if not why.killed:
        builds.fail_build(job.deployment_id, why.error)


@runs_claimed(BuildBundle, gave_up=_build_given_up)
def build(claim: Claim, job: BuildBundle) -> None:
    """Build a deploy bundle and make the first offers, if the build can start now.

    The deployment fails if the last attempt raises an error.
    """
    builds.build(job.deployment_id, claim)


@runs(StepRollout)
def step(job: StepRollout) -> None:
    """Run one rollout step of a deployment."""
    rollout_steps.run_step(job.deployment_id)


@runs(UndoBreakGlass)
def undo_break_glass(job: UndoBreakGlass) -> None:
    """Roll back or stop a break-glass deployment whose approval was denied, expired or revoked."""
    rollbacks.roll_back_break_glass(job.deployment_id)


@runs(WelcomeAgent)
def welcome(job: WelcomeAgent) -> None:
    """Offer a new, updated or undrained agent the deployment that is current for it."""
    late_joiners.offer_to_late_joiners([job.agent_id])


@runs(WelcomeAgents)
def welcome_several(job: WelcomeAgents) -> None:
    """Offer new or relabeled agents the deployments that are current for them."""
    late_joiners.offer_to_late_joiners(job.agent_ids.split(","))


@runs(OfferAfterHold)
def offer_after_hold(job: OfferAfterHold) -> None:
    """Make the offers that late joiners did not get while offers were held.

    If offers are still held, check again in a minute.
    """
    late_joiners.offer_after_hold(job.environment_id)


@runs(AgentLeft)
def agent_left(job: AgentLeft) -> None:
    """Enqueue a step of each rollout or rollback that may wait for the agent."""
    deployment_jobs.step_rollouts_of_agent(job.agent_id)


@runs_periodically(DELETE_OLD_DETAILS)
def delete_old_details() -> None:
    """Delete old reports, agent progress and timeline entries."""
    housekeeping.delete_old_details()


@runs_periodically(SUM_PROGRESS)
def sum_progress() -> None:
    """Replace the changes to the agent counts of deployments with their sums."""
    progress.sum_up()


@runs_periodically(RENEW_TESTS)
def renew_tests() -> None:
    """Renew the deleted and outdated regressions that block deployments."""
    replay_gate.refresh_blocked()


@runs_periodically(SWEEP)
def sweep() -> None:
    """Expire overdue approvals, and enqueue the jobs of deployments that may be able to continue.

    The jobs are those of unapproved break-glass deployments and of deployments in flight. They notice agent timeouts,
    the end of pauses between waves, and waiting builds that can start. Deployments that wait for their start time are
    left out, as are those whose ``gate_until`` has not passed.
    """
    now = timezone.now()
    expired = (
        Approval.objects.filter(status=ApprovalStatus.PENDING, expires_at__lte=now)
        .exclude(deployment__in=replay_gate.standing_still())
        .exclude(rollout__paused_at__isnull=False)
    )
    for approval in without_large(expired):
        approvals.expire(approval, actor=deployments.WORKER)
    for deployment_id in rollbacks.find_unapproved_break_glass().values_list("pk", flat=True):
        deployment_jobs.enqueue_break_glass_rollback(deployment_id)
    # A deployment with ``gate_until`` waits only for the replay gate. Other functions enqueue its build when the gate
    # may open. It is enqueued here only after the time ``gate_until``.
    due = Q(gate_until=None) | Q(gate_until__lte=now)
    due &= ~Q(status=DeploymentStatus.APPROVED) | Q(start_at=None) | Q(start_at__lte=now)
    for deployment_id, status in Deployment.objects.filter(due, status__in=IN_FLIGHT).values_list("pk", "status"):
        if status in {DeploymentStatus.APPROVED, DeploymentStatus.BUILDING}:
            deployment_jobs.enqueue_build(deployment_id)
        else:
            deployment_jobs.enqueue_rollout_step(deployment_id)
