"""The worker's jobs of this app: they load by id and call a service; each is safe to run twice."""

from __future__ import annotations

from django.utils import timezone

from apps.fleet.jobs import AgentLeft, WelcomeAgent
from apps.releases.jobs import FORGET_PARTICULARS, SWEEP, BuildBundle, StepRollout, UndoBreakGlass
from apps.releases.models import Approval, Deployment
from apps.releases.services import approvals, builds, deployments, housekeeping, offers, rollbacks, rollout
from byteor_cloud.engine.machines import IN_FLIGHT, ApprovalStatus, DeploymentStatus
from byteor_cloud.jobs import Claim, GivenUp, runs, runs_claimed, runs_periodically


def _build_given_up(why: GivenUp, job: BuildBundle) -> None:
    # Killed, it waits for the dead letter to be retried: nothing is known against the configuration.
    if not why.killed:
        builds.give_up(job.deployment_id, why.error)


@runs_claimed(BuildBundle, gave_up=_build_given_up)
def build(claim: Claim, job: BuildBundle) -> None:
    """Build a deploy bundle; after the last attempt the deployment is failed."""
    builds.build(job.deployment_id, claim)


@runs(StepRollout)
def step(job: StepRollout) -> None:
    """Take a deployment's next step."""
    rollout.step(job.deployment_id)


@runs(UndoBreakGlass)
def undo_break_glass(job: UndoBreakGlass) -> None:
    """Roll back what went ahead by break-glass and was not approved."""
    rollbacks.undo_break_glass(job.deployment_id)


@runs(WelcomeAgent)
def welcome(job: WelcomeAgent) -> None:
    """Offer a new or relabelled agent what runs in its environment."""
    offers.welcome(job.agent_id)


@runs(AgentLeft)
def agent_left(job: AgentLeft) -> None:
    """Step the rollouts that may have waited for the agent."""
    offers.agent_left(job.agent_id)


@runs_periodically(FORGET_PARTICULARS)
def forget_particulars() -> None:
    """Reports, agents' parts and timelines of deployments that were over long ago."""
    housekeeping.forget_particulars()


@runs_periodically(SWEEP)
def sweep() -> None:
    """What time alone brings about: expiries, timeouts, pauses that end, a turn that comes."""
    for approval in Approval.objects.filter(status=ApprovalStatus.PENDING, expires_at__lte=timezone.now()):
        approvals.expire(approval, actor=deployments.WORKER)
    for deployment_id in rollbacks.unapproved().values_list("pk", flat=True):
        offers.enqueue_undo(deployment_id)
    for deployment_id, status in Deployment.objects.filter(status__in=IN_FLIGHT).values_list("pk", "status"):
        if status in {DeploymentStatus.APPROVED, DeploymentStatus.BUILDING}:
            offers.enqueue_build(deployment_id)
        else:
            offers.wake(deployment_id)
