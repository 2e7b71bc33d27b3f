"""Offers to late joiners, overlaps between deployments, and the jobs that move a deployment on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet, Value

from apps.fleet.models import Agent
from apps.fleet.services import agents as fleet
from apps.releases.jobs import BuildBundle, StepRollout, UndoBreakGlass
from apps.releases.models import Deployment, DeploymentAgent
from apps.releases.services import assignments
from apps.tenancy.models import Environment
from apps.tenancy.services.state import lock_row
from byteor.engine.machines import DeploymentStatus
from byteor.engine.target import Target
from byteor_cloud.database.large_columns import each_row
from byteor_cloud.worker.jobs import enqueue


def overlaps(deployment: Deployment, others: Iterable[Deployment]) -> bool:
    """Return whether any of the other deployments has the same pipeline, or a target that shares agents."""
    others = list(others)
    return any(other.pipeline == deployment.pipeline for other in others) or bool(
        find_sharing(deployment.environment, deployment.target, others)
    )


def find_sharing(environment: Environment, target: Target, others: Sequence[Deployment]) -> set[UUID]:
    """Return the ids of the other deployments whose targets share agents with ``target`` now, in at most one query."""
    mine = fleet.select_agents(environment, target)
    shared = [
        mine.filter(pk__in=fleet.select_agents(environment, other.target).order_by().values("pk"))
        .order_by()
        .values_list(Value(number))[:1]
        for number, other in enumerate(others)
    ]
    if not shared:
        return set()
    return {others[number].pk for (number,) in shared[0].union(*shared[1:], all=True)}


def offer_to_late_joiners(agent_ids: Collection[str]) -> None:
    """Offer each late joiner the newest current deployment of its environment whose target matches it."""
    agents = Agent.objects.taking_offers().filter(pk__in=fleet.unnest_ids(agent_ids))
    for environment in Environment.objects.filter(pk__in=agents.values("environment")).order_by("pk"):
        with transaction.atomic():
            lock_row(environment)
            for deployment, joiners in match_current(environment, agents.filter(environment=environment)):
                assignments.offer_late(deployment, only=joiners)


def match_current(
    environment: Environment, agents: QuerySet[Agent], *, labels: str = "labels"
) -> Iterator[tuple[Deployment, list[UUID]]]:
    """Yield the current deployments, newest first, each with the agents that it is the first to match.

    ``labels`` names the column or annotation with the labels that the agents have, or would have.
    """
    matched: set[UUID] = set()
    for deployment in each_row(Deployment.objects.filter(environment=environment, is_current=True).order_by("-id")):
        target, found = deployment.target, agents
        if target.agents is not None:
            found = found.filter(pk__in=fleet.unnest_ids(target.agents))
        elif target.selector is not None:
            found = found.filter(**{f"{labels}__contains": target.selector})
        joiners = [pk for pk in found.order_by("pk").values_list("pk", flat=True) if pk not in matched]
        matched.update(joiners)
        if joiners:
            yield deployment, joiners


def step_rollouts_of_agent(agent_id: str) -> None:
    """Enqueue a step of each rollout that may wait for the agent."""
    running = DeploymentAgent.objects.filter(
        agent_id=agent_id,
        deployment__status__in=[DeploymentStatus.DEPLOYING, DeploymentStatus.ROLLING_BACK],
    )
    for deployment_id in running.values_list("deployment_id", flat=True):
        enqueue_rollout_step(deployment_id)


def enqueue_rollout_step(deployment_id: object) -> None:
    """Enqueue one rollout step of the deployment, unless one is waiting already."""
    _enqueue(StepRollout(deployment_id=str(deployment_id)), once=f"step:{deployment_id}")


def enqueue_build(deployment_id: object) -> None:
    """Enqueue the build of the deployment, unless it is waiting already. The build starts when the deployment can."""
    _enqueue(BuildBundle(deployment_id=str(deployment_id)), once=f"build:{deployment_id}")


def enqueue_break_glass_rollback(deployment_id: object) -> None:
    """Enqueue the rollback of a break-glass deployment that was not approved."""
    _enqueue(UndoBreakGlass(deployment_id=str(deployment_id)), once=f"undo_break_glass:{deployment_id}")


def _enqueue(job: StepRollout | BuildBundle | UndoBreakGlass, *, once: str) -> None:
    """Enqueue the job unless its deployment is gone; the jobs of one deployment run one at a time."""
    rows = Deployment.objects.filter(pk=job.deployment_id).order_by()
    if (organization := rows.values_list("environment__project__organization_id", flat=True).first()) is not None:
        enqueue(job, organization=organization, once=once, serial=job.deployment_id)
