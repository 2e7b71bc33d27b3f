"""Who takes part in a deployment, and what each agent is offered: made, taken back, brought to late joiners.

Statements over whole fleets: a deployment may have 100,000 agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.fleet import services as fleet
from apps.fleet.models import Agent
from apps.releases.jobs import BuildBundle, StepRollout, UndoBreakGlass
from apps.releases.models import Deployment, DeploymentAgent, KnownBad
from apps.releases.services import bundles
from apps.tenancy.state import lock
from byteor_cloud.engine.machines import IN_FLIGHT, AgentProgress, ApprovalStatus, DeploymentStatus
from byteor_cloud.engine.rollout import AT_ONCE, Strategy
from byteor_cloud.jobs import enqueue

# What went ahead by break-glass and was not approved afterwards: nobody goes back to it.
UNCONSENTED = Q(
    break_glass__isnull=False,
    approval__status__in=[ApprovalStatus.DENIED, ApprovalStatus.EXPIRED, ApprovalStatus.REVOKED],
)
_ENLIST = """
INSERT INTO releases_deploymentagent
    (deployment_id, agent_id, wave, counted, action, progress, detail, updated_at, before_id)
SELECT %s, found.id, least(width_bucket(found.place, %s::bigint[]), %s), found.counted,
       'activate', 'pending', '', now(), earlier.id
FROM (
    SELECT id, %s + row_number() OVER (ORDER BY id) - 1 AS place, %s OR liveness <> 'offline' AS counted
    FROM ({agents}) AS matched
) AS found
JOIN fleet_assignment AS wanted ON wanted.agent_id = found.id
LEFT JOIN releases_deployment AS earlier ON earlier.id = wanted.bundle_deployment_id
ORDER BY found.place  -- so that lists of them are in the fleet's order
RETURNING agent_id
"""


def good(environment_id: UUID) -> QuerySet[Deployment]:
    """What an agent may be brought back to: built, not known bad, and not a break-glass that nobody approved."""
    barred = KnownBad.objects.filter(environment_id=environment_id).values("config_hash")
    built = Deployment.objects.filter(environment_id=environment_id, bundle_hash__isnull=False)
    return built.exclude(config_hash__in=barred).exclude(UNCONSENTED)


def strategy_of(deployment: Deployment) -> Strategy:
    """The planner's view of the stored strategy."""
    stored = deployment.strategy
    return Strategy(
        percents=tuple(stored.get("percents", (100,))),
        pause_s=stored.get("pause_s", 0),
        failure_threshold_percent=stored["failure_threshold_percent"],
    )


def overlaps(deployment: Deployment, others: Iterable[Deployment]) -> bool:
    """Whether one of the others has its pipeline or, by their targets, some of its agents."""
    mine = fleet.matching(deployment.environment, deployment.target)
    return any(
        other.pipeline == deployment.pipeline
        or mine.filter(pk__in=fleet.matching(deployment.environment, other.target).order_by().values("pk")).exists()
        for other in others
    )


def free(deployment: Deployment) -> Any:
    """The agents that match the target and that it may have: without take_over, none that runs another pipeline."""
    agents = fleet.matching(deployment.environment, deployment.target)
    if deployment.take_over:
        return agents
    others = Deployment.objects.filter(environment=deployment.environment).exclude(pipeline=deployment.pipeline)
    return agents.exclude(assignment__bundle_deployment_id__in=others.values("pk"))


def _matching(deployment: Deployment) -> Any:
    return free(deployment).with_state()


def muster(deployment: Deployment) -> dict[str, Any] | None:
    """The start of enlisting: whom the target finds now; None when nobody.

    Those that are offline now will not count for waves and thresholds. With nobody online there is nobody to go by:
    then everybody counts, rather than calling it done unseen.
    """
    found = _matching(deployment)
    last = found.order_by("-id").first()
    if last is None:
        return None
    return {
        "place": 0,
        "count": found.count(),
        "after": None,
        "until": str(last.pk),
        "everybody_counts": not found.exclude(liveness="offline").exists(),
    }


def enlist(deployment: Deployment) -> None:
    """Note the part of the next agents that the deployment is for, and what each was to run before.

    Waves go by the agents' ids. The caller holds the deployment's lock.
    """
    state = deployment.enlisting
    agents = _matching(deployment).filter(pk__lte=state["until"])
    if state["after"] is not None:
        agents = agents.filter(pk__gt=state["after"])
    matched, parameters = agents.values("id", "liveness")[:AT_ONCE].query.sql_with_params()
    bounds = strategy_of(deployment).bounds(state["count"])
    with connection.cursor() as cursor:
        cursor.execute(
            _ENLIST.format(agents=matched),
            [deployment.pk, list(bounds), len(bounds) - 1, state["place"], state["everybody_counts"], *parameters],
        )
        enlisted = [agent_id for (agent_id,) in cursor.fetchall()]
    if len(enlisted) < AT_ONCE:
        deployment.enlisting = None
    else:
        deployment.enlisting = {**state, "place": state["place"] + len(enlisted), "after": str(max(enlisted))}
    deployment.save(update_fields=["enlisting"])


def offer_of(built: Deployment, *, by: Deployment, since: datetime) -> fleet.Offer:
    """The offer of the bundle that ``built`` was built with, made by itself, or by another that is rolled back."""
    return fleet.Offer(
        deployment_id=by.pk,
        bundle_deployment_id=built.pk,
        action="activate" if by == built else "rollback",
        bundle_hash=built.bundle_hash or "",
        bundle_size=built.bundle_size or 0,
        since=since,
    )


def offer(deployment: Deployment, agent_ids: Sequence[UUID]) -> None:
    """Offer the deployment's bundle; the caller holds the deployment's lock."""
    if not agent_ids:
        return
    now = timezone.now()
    fleet.offer(agent_ids, offer_of(deployment, by=deployment, since=now))
    deployment.agents.filter(agent_id__in=fleet.these(agent_ids)).update(
        action="activate", progress=AgentProgress.OFFERED, offered_at=now, updated_at=now, detail=""
    )


def offer_first_wave(deployment: Deployment) -> None:
    """The first offers, in the transaction that says ``deploying``; to a large fleet the rest follows at once."""
    enlist(deployment)
    offer(deployment, list(deployment.agents.filter(wave=0).values_list("agent_id", flat=True)))


def withdraw_offers(deployment: Deployment) -> None:
    """Take back the offers that no agent has begun with: each is to run what it was to run before, if anything.

    Else an agent that was offline would start a release that was given up long ago.
    """
    open_offers = deployment.agents.filter(
        progress=AgentProgress.OFFERED, agent__assignment__deployment_id=deployment.pk
    ).order_by("agent_id")
    earlier = good(deployment.environment_id).filter(pk__in=open_offers.order_by().values("before")).in_bulk()
    parts = DeploymentAgent.objects.filter(
        deployment__in=earlier, agent__in=open_offers.order_by().values("agent"), offered_at__isnull=False
    ).values_list("deployment_id", "agent_id", "offered_at", "progress")
    before = {(deployment_id, agent_id): (since, progress) for deployment_id, agent_id, since, progress in parts}
    groups: dict[tuple[fleet.Offer | None, str], list[UUID]] = {}
    for agent_id, before_id in open_offers.values_list("agent_id", "before_id"):
        again: tuple[fleet.Offer | None, str] = (None, AgentProgress.PENDING)
        if (part := before.get((before_id, agent_id))) is not None:
            since, progress = part
            source = earlier[before_id]
            again = (offer_of(source, by=source, since=since or timezone.now()), progress)
        groups.setdefault(again, []).append(agent_id)
    for (instead, progress), agent_ids in groups.items():
        withdrawn = fleet.withdraw(agent_ids, deployment_id=deployment.pk, instead=instead, progress=progress)
        deployment.agents.filter(agent_id__in=fleet.these(withdrawn)).update(
            progress=AgentProgress.PENDING, offered_at=None, updated_at=timezone.now()
        )


def offer_late(deployment: Deployment, *, only: UUID | None = None) -> None:
    """Offer to agents that came to match after the start; they do not count for waves and thresholds.

    Not to those that another deployment is about to change, and nobody is offered what is known bad.
    """
    if bundles.is_barred(deployment.environment_id, deployment.config_hash):
        return
    busy = Deployment.objects.filter(environment=deployment.environment, status__in=IN_FLIGHT)
    agents = (
        free(deployment)
        .exclude(pk__in=deployment.agents.values("agent_id"))
        .exclude(assignment__bundle_deployment_id=deployment.pk)
        .exclude(assignment__deployment_id__in=busy.values("pk"))
    )
    if only is not None:
        agents = agents.filter(pk=only)
    joined = list(agents.values_list("pk", "assignment__bundle_deployment_id"))
    known = set(Deployment.objects.filter(pk__in={pk for _, pk in joined}).values_list("pk", flat=True))
    DeploymentAgent.objects.bulk_create(
        [
            DeploymentAgent(
                deployment=deployment,
                agent_id=agent_id,
                wave=deployment.wave,
                counted=False,
                before_id=before if before in known else None,
            )
            for agent_id, before in joined
        ],
        batch_size=2000,
    )
    offer(deployment, [agent_id for agent_id, _ in joined])


@transaction.atomic
def welcome(agent_id: str) -> None:
    """Offer a late joiner what runs in its environment: the newest current deployment whose target matches it."""
    agent = Agent.objects.enrolled().select_related("environment").filter(pk=agent_id).first()
    if agent is None:
        return
    lock(agent.environment)
    for deployment in Deployment.objects.filter(environment=agent.environment, is_current=True).order_by("-id"):
        if fleet.matching(agent.environment, deployment.target).filter(pk=agent.pk).exists():
            offer_late(deployment, only=agent.pk)
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
