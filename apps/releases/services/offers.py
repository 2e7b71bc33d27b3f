"""Whether deployments share agents, what a late joiner is offered, and the jobs that move a deployment on."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from apps.fleet import services as fleet
from apps.fleet.models import Agent
from apps.releases.jobs import BuildBundle, StepRollout, UndoBreakGlass
from apps.releases.models import Deployment, DeploymentAgent
from apps.releases.services import agent_parts
from apps.tenancy.state import lock
from byteor_cloud.engine.machines import DeploymentStatus
from byteor_cloud.jobs import enqueue


def overlaps(deployment: Deployment, others: Iterable[Deployment]) -> bool:
    """Whether one of the others has its pipeline or, by their targets, some of its agents."""
    mine = fleet.select_agents(deployment.environment, deployment.target)
    return any(
        other.pipeline == deployment.pipeline
        or mine.filter(
            pk__in=fleet.select_agents(deployment.environment, other.target).order_by().values("pk")
        ).exists()
        for other in others
    )


@transaction.atomic
def welcome(agent_id: str) -> None:
    """Offer a late joiner what runs in its environment: the newest current deployment whose target matches it."""
    agent = Agent.objects.enrolled().select_related("environment").filter(pk=agent_id).first()
    if agent is None:
        return
    lock(agent.environment)
    for deployment in Deployment.objects.filter(environment=agent.environment, is_current=True).order_by("-id"):
        if fleet.select_agents(agent.environment, deployment.target).filter(pk=agent.pk).exists():
            agent_parts.offer_late(deployment, only=agent.pk)
            return


def agent_left(agent_id: str) -> None:
    """Step the rollouts that may have waited for the agent."""
    running = DeploymentAgent.objects.filter(
        agent_id=agent_id,
        deployment__status__in=[DeploymentStatus.DEPLOYING, DeploymentStatus.ROLLING_BACK],
    )
    for deployment_id in running.values_list("deployment_id", flat=True):
        wake(deployment_id)


def wake(deployment_id: object) -> None:
    """Have the worker take the deployment's next step; many wakes become one."""
    _enqueue(StepRollout(deployment_id=str(deployment_id)), once=f"step:{deployment_id}")


def enqueue_build(deployment_id: object) -> None:
    """Have the worker build the deployment's bundle and make its first offers, when its turn has come."""
    _enqueue(BuildBundle(deployment_id=str(deployment_id)), once=f"build:{deployment_id}")


def enqueue_undo(deployment_id: object) -> None:
    """Have the worker undo what went ahead by break-glass."""
    _enqueue(UndoBreakGlass(deployment_id=str(deployment_id)), once=f"undo_break_glass:{deployment_id}")


def _enqueue(job: StepRollout | BuildBundle | UndoBreakGlass, *, once: str) -> None:
    """Enqueue the job unless its deployment is gone; the jobs of one deployment run one at a time."""
    of = Deployment.objects.filter(pk=job.deployment_id).order_by()
    if (organization := of.values_list("environment__project__organization_id", flat=True).first()) is not None:
        enqueue(job, organization=organization, once=once, serial=job.deployment_id)
