"""The worker's jobs of this app: they load by id and call a service; each is safe to run twice."""

from __future__ import annotations

from django.utils import timezone

from apps.releases.models import Approval, Deployment
from apps.releases.services import approvals, deployments, rollout
from byteor_cloud.engine.machines import ApprovalStatus, DeploymentStatus
from byteor_cloud.jobs import enqueue, final_job, job, periodic


@final_job("releases.build")
def build(deployment_id: str, *, last: bool) -> None:
    """Build a deploy bundle; after the last attempt the deployment is failed."""
    try:
        rollout.build(deployment_id)
    except Exception as error:
        if last:
            rollout.give_up_building(deployment_id, f"{type(error).__name__}: {error}")
        raise


@job("releases.step")
def step(deployment_id: str) -> None:
    """Take a deployment's next step."""
    rollout.step(deployment_id)


@job("releases.welcome")
def welcome(agent_id: str) -> None:
    """Offer a new or relabelled agent what runs in its environment."""
    rollout.welcome(agent_id)


@job("releases.agent_left")
def agent_left(agent_id: str) -> None:
    """Step the rollouts that may have waited for the agent."""
    rollout.agent_left(agent_id)


@periodic("releases.sweep", cron="*/5 * * * * *")
def sweep() -> None:
    """What time alone brings about: expiries, timeouts, pauses that end, a turn that comes."""
    for approval in Approval.objects.filter(status=ApprovalStatus.PENDING, expires_at__lte=timezone.now()):
        approvals.expire(approval, actor=rollout.WORKER)
    for deployment_id, status in Deployment.objects.filter(
        status__in=[
            DeploymentStatus.APPROVED,
            DeploymentStatus.BUILDING,
            DeploymentStatus.DEPLOYING,
            DeploymentStatus.ROLLING_BACK,
        ]
    ).values_list("pk", "status"):
        if status in {DeploymentStatus.APPROVED, DeploymentStatus.BUILDING}:
            enqueue(
                "releases.build",
                once=f"build:{deployment_id}",
                serial=str(deployment_id),
                deployment_id=str(deployment_id),
            )
        else:
            deployments.wake(deployment_id)
