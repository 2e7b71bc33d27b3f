"""Agents' parts in deployments: the only writer of ``Assignment`` and ``DeploymentAgent``, which change together.

An assignment says what an agent is to run now. A part says how far an agent came in one deployment. Each function
makes one change to both, in the transaction of its caller.

Locks are taken in this order: environment, approval, deployment, assignments, parts. A change that concerns many agents
holds the environment's lock, so that no two such changes meet. A report holds its own agent's assignment and nothing
before that. Statements span whole fleets: a deployment may have 100,000 agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from apps.fleet import services as fleet
from apps.fleet.models import Assignment
from apps.releases.models import Deployment, DeploymentAgent, KnownBad
from apps.releases.services import bundles
from apps.tenancy.pruning import delete_in_batches
from byteor_cloud.engine.machines import IN_FLIGHT, AgentProgress, ApprovalStatus, OfferAction
from byteor_cloud.engine.rollout import AT_ONCE, Enlisting

# What went ahead by break-glass and was not approved afterwards: nobody goes back to it.
UNCONSENTED = Q(
    break_glass__isnull=False,
    approval__status__in=[ApprovalStatus.DENIED, ApprovalStatus.EXPIRED, ApprovalStatus.REVOKED],
)
_NO_OFFER = dict.fromkeys(("deployment_id", "bundle_deployment_id", "action", "bundle_hash", "bundle_size", "since"))
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
    """Return what an agent may be brought back to: built, not known bad, and no break-glass that nobody approved."""
    barred = KnownBad.objects.filter(environment_id=environment_id).values("config_hash")
    built = Deployment.objects.filter(environment_id=environment_id, bundle_hash__isnull=False)
    return built.exclude(config_hash__in=barred).exclude(UNCONSENTED)


def free(deployment: Deployment) -> Any:
    """Return the agents that match the target and may be had: without take_over, none that runs another pipeline."""
    agents = fleet.select_agents(deployment.environment, deployment.target)
    if deployment.take_over:
        return agents
    others = Deployment.objects.filter(environment=deployment.environment).exclude(pipeline=deployment.pipeline)
    return agents.exclude(assignment__bundle_deployment_id__in=others.values("pk"))


def muster(deployment: Deployment) -> Enlisting | None:
    """Return the start of enlisting: whom the target finds now; None when nobody.

    Agents that are offline now will not count for waves and thresholds. With nobody online there is nobody to go by:
    then everybody counts, rather than calling the deployment done unseen.
    """
    found = free(deployment).with_state()
    last = found.order_by("-id").first()
    if last is None:
        return None
    everybody_counts = not found.exclude(liveness="offline").exists()
    return Enlisting(0, found.count(), None, str(last.pk), everybody_counts)


def enlist(deployment: Deployment) -> None:
    """Give the target's next agents, if any, a part, in waves by the order of their ids; note what each ran before.

    The agents are offered nothing yet. The caller holds the deployment's lock.
    """
    state = deployment.enlisting
    if state is None:
        return
    agents = free(deployment).with_state().filter(pk__lte=state.until)
    if state.after is not None:
        agents = agents.filter(pk__gt=state.after)
    matched, parameters = agents.values("id", "liveness")[:AT_ONCE].query.sql_with_params()
    bounds = deployment.strategy.bounds(state.count)
    with connection.cursor() as cursor:
        cursor.execute(
            _ENLIST.format(agents=matched),
            [deployment.pk, list(bounds), len(bounds) - 1, state.place, state.everybody_counts, *parameters],
        )
        enlisted = [agent_id for (agent_id,) in cursor.fetchall()]
    if len(enlisted) < AT_ONCE:
        deployment.enlisting = None
    else:
        deployment.enlisting = replace(state, place=state.place + len(enlisted), after=str(max(enlisted)))
    deployment.save(update_fields=["enlisting"])


def offer(deployment: Deployment, agent_ids: Iterable[UUID]) -> None:
    """Offer the deployment's bundle to agents that have a part in it; the same bundle again is a new offer."""
    if not (chosen := list(agent_ids)):
        return
    now = timezone.now()
    _assign(chosen, deployment, by=deployment, since=now)
    _change(deployment, chosen, action=OfferAction.ACTIVATE, progress=AgentProgress.OFFERED, offered_at=now, detail="")


def offer_late(deployment: Deployment, *, only: UUID | None = None) -> None:
    """Offer the bundle to late joiners, with a part that does not count for waves and thresholds.

    Agents that another deployment is about to change are left to it, and nobody is offered what is known bad.
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
                before_id=before_id if before_id in known else None,
            )
            for agent_id, before_id in joined
        ],
        batch_size=2000,
    )
    offer(deployment, [agent_id for agent_id, _ in joined])


def offer_again(deployment: Deployment, agent_ids: Iterable[UUID], *, renew_all: bool) -> None:
    """Offer the bundle anew to the agents that failed it; ``renew_all`` gives the others their whole time again."""
    failed = list(agent_ids)
    offer(deployment, failed)
    if renew_all:
        others = deployment.agents.filter(offered_at__isnull=False).exclude(agent_id__in=fleet.unnest_ids(failed))
        others.update(offered_at=timezone.now())


def send_back(deployment: Deployment, touched: QuerySet[DeploymentAgent], *, otherwise: Deployment) -> None:
    """Offer each of the touched agents what it ran before the deployment, or ``otherwise``'s bundle."""
    rows = list(touched.values_list("agent_id", "before_id"))
    others = good(deployment.environment_id).exclude(pk=deployment.pk)
    earlier = others.filter(pk__in={before_id for _, before_id in rows}).in_bulk()
    groups: dict[Deployment, list[UUID]] = {}
    for agent_id, before_id in rows:
        groups.setdefault(earlier.get(before_id, otherwise), []).append(agent_id)
    now = timezone.now()
    for before, agent_ids in groups.items():
        _assign(agent_ids, before, by=deployment, since=now)
    # Who had no part in that one has it from now on: its own rollback must find them.
    DeploymentAgent.objects.bulk_create(
        [
            DeploymentAgent(
                deployment=before,
                agent_id=agent_id,
                wave=before.wave,
                counted=False,
                progress=AgentProgress.ACTIVE,
                offered_at=now,
            )
            for before, agent_ids in groups.items()
            for agent_id in agent_ids
        ],
        batch_size=2000,
        ignore_conflicts=True,
    )
    chosen = [agent_id for agent_id, _ in rows]
    _change(deployment, chosen, action=OfferAction.ROLLBACK, progress=AgentProgress.OFFERED, offered_at=now, detail="")


def withdraw(deployment: Deployment) -> None:
    """Take back the offers that no agent has begun with: each agent is to run what it was to run before, if anything.

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
    groups: dict[tuple[UUID, datetime | None, str] | None, list[UUID]] = {}
    for agent_id, before_id in open_offers.values_list("agent_id", "before_id"):
        part = before.get((before_id, agent_id))
        groups.setdefault(None if part is None else (before_id, *part), []).append(agent_id)
    for again, agent_ids in groups.items():
        untouched = Assignment.objects.filter(
            agent_id__in=fleet.unnest_ids(agent_ids), deployment_id=deployment.pk, progress=AgentProgress.OFFERED
        )
        # The rows' locks first: a report that is on its way counts.
        found = list(untouched.select_for_update(no_key=True).order_by("agent_id").values_list("agent_id", flat=True))
        if again is None:
            Assignment.objects.filter(agent_id__in=fleet.unnest_ids(found)).update(
                **_NO_OFFER, progress=AgentProgress.PENDING
            )
        else:
            before_id, since, progress = again
            _assign(found, earlier[before_id], by=earlier[before_id], since=since, progress=progress)
        _change(deployment, found, progress=AgentProgress.PENDING, offered_at=None)


def hold(agent_ids: Iterable[UUID]) -> None:
    """Wait for the reports of these agents that are on their way, and hold back further ones."""
    chosen = Assignment.objects.filter(agent_id__in=fleet.unnest_ids(agent_ids)).order_by("agent_id")
    list(chosen.select_for_update(no_key=True).values_list("agent_id", flat=True))


def note_report(
    deployment: Deployment, wanted: Assignment, progress: AgentProgress, *, detail: str, tuning: Any
) -> None:
    """Note an accepted report on the deployment's offer. The caller has locked and checked ``wanted``."""
    now = timezone.now()
    offered = {"deployment_id": deployment.pk, "bundle_hash": wanted.bundle_hash}
    changes: dict[str, Any] = {"progress": progress}
    if offered != {"deployment_id": wanted.attempted_deployment_id, "bundle_hash": wanted.attempted_bundle_hash}:
        changes |= {f"attempted_{name}": value for name, value in offered.items()} | {"attempted_since": now}
    if progress is AgentProgress.FAILED:
        changes |= {f"failed_{name}": value for name, value in offered.items()}
        changes |= {"failed_since": now, "failed_detail": detail}
    Assignment.objects.filter(pk=wanted.pk).update(**changes)
    said = {} if tuning is None else {"tuning": tuning}
    deployment.agents.filter(agent_id=wanted.pk).update(progress=progress, detail=detail, updated_at=now, **said)


def time_out(deployment: Deployment, agent_ids: Iterable[UUID]) -> None:
    """Give up on agents that did not finish their offers; a later report of theirs is a late one."""
    late = list(agent_ids)
    detail = f"did not finish within {deployment.policy.agent_timeout_s} s"
    Assignment.objects.filter(agent_id__in=fleet.unnest_ids(late), deployment_id=deployment.pk).update(
        progress=AgentProgress.FAILED,
        failed_deployment_id=F("deployment_id"),
        failed_bundle_hash=F("bundle_hash"),
        failed_since=timezone.now(),
        failed_detail=detail,
    )
    _change(deployment, late, progress=AgentProgress.FAILED, detail=detail)


def forget(over: Q) -> int:
    """Remove the parts for which ``over`` holds; return how many went. Assignments go with their agents."""
    return delete_in_batches(DeploymentAgent.objects.filter(over))


def _assign(
    agent_ids: Iterable[UUID],
    built: Deployment,
    *,
    by: Deployment,
    since: datetime | None,
    progress: str = AgentProgress.OFFERED,
) -> None:
    """Have the agents run the bundle of ``built``, offered by itself or by the deployment that is rolled back."""
    Assignment.objects.filter(agent_id__in=fleet.unnest_ids(agent_ids)).update(
        deployment_id=by.pk,
        bundle_deployment_id=built.pk,
        action=OfferAction.ACTIVATE if by == built else OfferAction.ROLLBACK,
        bundle_hash=built.bundle_hash or "",
        bundle_size=built.bundle_size or 0,
        since=since,
        progress=progress,
    )


def _change(deployment: Deployment, agent_ids: Iterable[UUID], **fields: Any) -> None:
    deployment.agents.filter(agent_id__in=fleet.unnest_ids(agent_ids)).update(updated_at=timezone.now(), **fields)
