"""The worker's jobs of this app: they load by id and call a service; each is safe to run twice."""

from __future__ import annotations

from django.utils import timezone

from apps.releases.models import Approval, Deployment
from apps.releases.services import approvals, builds, deployments, housekeeping, offers, rollbacks, rollout
from byteor_cloud.engine.machines import IN_FLIGHT, ApprovalStatus, DeploymentStatus
from byteor_cloud.jobs import Claim, GivenUp, Lane, claimed_job, job, periodic


def _build_given_up(why: GivenUp, *, deployment_id: str) -> None:
    # Killed, it waits for the dead letter to be retried: nothing is known against the configuration.
    if not why.killed:
        builds.give_up(deployment_id, why.error)


@claimed_job("releases.build", lane=Lane.RELEASES, gave_up=_build_given_up)
def build(claim: Claim, deployment_id: str) -> None:
    """Build a deploy bundle; after the last attempt the deployment is failed."""
    builds.build(deployment_id, claim)


@job("releases.step", lane=Lane.RELEASES)
def step(deployment_id: str) -> None:
    """Take a deployment's next step."""
    rollout.step(deployment_id)


@job("releases.undo_break_glass", lane=Lane.RELEASES)
def undo_break_glass(deployment_id: str) -> None:
    """Roll back what went ahead by break-glass and was not approved."""
    rollbacks.undo_break_glass(deployment_id)


@job("releases.welcome", lane=Lane.RELEASES)
def welcome(agent_id: str) -> None:
    """Offer a new or relabelled agent what runs in its environment."""
    offers.welcome(agent_id)


@job("releases.agent_left", lane=Lane.RELEASES)
def agent_left(agent_id: str) -> None:
    """Step the rollouts that may have waited for the agent."""
    offers.agent_left(agent_id)


@periodic("releases.forget_particulars", every_s=3600, at_s=29 * 60, lane=Lane.CLEANING)
def forget_particulars() -> None:
    """Reports, agents' parts and timelines of deployments that were over long ago."""
    housekeeping.forget_particulars()


@periodic("releases.sweep", every_s=5)
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
