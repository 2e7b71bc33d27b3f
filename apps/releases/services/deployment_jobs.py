"""Enqueue the jobs that continue deployments."""

from __future__ import annotations

from apps.releases.jobs import BuildBundle, OfferAfterHold, StepRollout, UndoBreakGlass
from apps.releases.models import Deployment, DeploymentAgent
from apps.tenancy.models import Environment
from byteor.engine.machines import DeploymentStatus
from byteor_cloud.worker.jobs import enqueue

HOLD_CHECKED_EVERY_S = 60


def step_rollouts_of_agent(agent_id: str) -> None:
    """Enqueue a step of each rollout or rollback that may wait for the agent."""
    running = DeploymentAgent.objects.filter(
        agent_id=agent_id,
        deployment__status__in=[DeploymentStatus.DEPLOYING, DeploymentStatus.ROLLING_BACK],
    )
    for deployment_id in running.values_list("deployment_id", flat=True):
        enqueue_rollout_step(deployment_id)


def enqueue_rollout_step(deployment_id: object) -> None:
    """Enqueue one rollout step of the deployment, unless one is already queued."""
    _enqueue(StepRollout(deployment_id=str(deployment_id)), once=f"step:{deployment_id}")


def enqueue_build(deployment_id: object) -> None:
    """Enqueue the deployment's build, unless one is already queued. The job checks whether the build can start."""
    _enqueue(BuildBundle(deployment_id=str(deployment_id)), once=f"build:{deployment_id}")


def enqueue_break_glass_rollback(deployment_id: object) -> None:
    """Enqueue the rollback of an unapproved break-glass deployment, unless it is already queued."""
    _enqueue(UndoBreakGlass(deployment_id=str(deployment_id)), once=f"undo_break_glass:{deployment_id}")


def enqueue_offer_after_hold(environment: Environment) -> None:
    """Enqueue the job that makes the offers to late joiners once the environment's offers are no longer held."""
    enqueue(
        OfferAfterHold(environment_id=str(environment.pk)),
        organization=environment.project.organization_id,
        once=f"offer_after_hold:{environment.pk}",
        after_s=HOLD_CHECKED_EVERY_S,
    )


def _enqueue(job: StepRollout | BuildBundle | UndoBreakGlass, *, once: str) -> None:
    """Enqueue the job unless its deployment was deleted. The jobs of a deployment run one at a time."""
    rows = Deployment.objects.filter(pk=job.deployment_id).order_by()
    if (organization := rows.values_list("environment__project__organization_id", flat=True).first()) is not None:
        enqueue(job, organization=organization, once=once, serial=job.deployment_id)
