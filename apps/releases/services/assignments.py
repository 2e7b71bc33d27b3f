"""The only module that changes ``Assignment`` and ``DeploymentAgent`` rows, which change together.

An ``Assignment`` states what an agent should run now. Enrolling an agent creates its empty assignment. A
``DeploymentAgent`` stores an agent's progress in one deployment. The functions here run in their caller's transaction,
except ``delete_deployment_agents``.

Locks are acquired in this order: environment, approval, deployment, assignments, deployment agents. The approval of a
wave may also be locked after the deployment, because every change to it locks the environment first. A change to many
agents of an environment locks the environment, so such changes never run concurrently (except
``delete_deployment_agents`` and, after a restore, ``hold_all``). A report takes exclusive locks only on rows of its
agent. Statements change many agents at a time, because a deployment may have 100,000 agents.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from apps.fleet.models import Agent, Assignment
from apps.fleet.services.selection import select_agents, unnest_ids
from apps.releases.models import Deployment, DeploymentAgent, KnownBad
from apps.releases.services import bundles
from byteor.engine import failures
from byteor.engine.machines import IN_FLIGHT, AgentProgress, ApprovalStatus, OfferAction
from byteor.engine.rollout import AGENTS_PER_STEP, EnlistmentCursor
from byteor_cloud.database.deletion import delete_in_batches
from byteor_cloud.database.large_columns import without_large

# Break-glass deployments whose approval was denied, expired or revoked. A rollback that starts then restores none of
# them.
UNAPPROVED_BREAK_GLASS = Q(
    break_glass__isnull=False,
    approval__status__in=[ApprovalStatus.DENIED, ApprovalStatus.EXPIRED, ApprovalStatus.REVOKED],
)
_NO_OFFER = dict.fromkeys(
    ("deployment_id", "bundle_deployment_id", "action", "bundle_hash", "bundle_size", "since", "held_backup_at")
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
JOIN fleet_assignment AS assignment ON assignment.agent_id = found.id
LEFT JOIN releases_deployment AS earlier
    -- If the offer is held, the agent may run something else. It gets that offer again only if offers are resumed.
    ON earlier.id = assignment.bundle_deployment_id AND assignment.held_backup_at IS NULL
ORDER BY found.place  -- insert the rows in the order of agent ids, because the API lists them by their own ids
RETURNING agent_id
"""
_RECORD_FAILURES = """
INSERT INTO releases_agentfailure (part_id, deployment_id, action, reason, detail, cause, at)
SELECT id, deployment_id, action, (%s::jsonb) ->> action, %s, %s, %s
FROM releases_deploymentagent WHERE deployment_id = %s AND agent_id = ANY(%s)
ON CONFLICT (part_id, action) DO UPDATE
    SET reason = excluded.reason, detail = excluded.detail, cause = excluded.cause, at = excluded.at
"""


def rollback_candidates(environment_id: UUID) -> QuerySet[Deployment]:
    """Return the environment's deployments that a rollback may restore.

    Each is built and not known bad. If it started by break-glass, its approval was not denied, expired or revoked.
    """
    barred = KnownBad.objects.filter(environment_id=environment_id).values("config_hash")
    built = Deployment.objects.filter(environment_id=environment_id, bundle_hash__isnull=False)
    return built.exclude(config_hash__in=barred).exclude(UNAPPROVED_BREAK_GLASS)


def available_agents(deployment: Deployment) -> Any:
    """Return the agents that match the target. Without ``take_over``, agents of other pipelines are left out."""
    return _without_other_pipelines(deployment, select_agents(deployment.environment, deployment.target))


def _without_other_pipelines(deployment: Deployment, agents: QuerySet[Agent]) -> Any:
    if deployment.take_over:
        return agents
    others = Deployment.objects.filter(environment=deployment.environment).exclude(pipeline=deployment.pipeline)
    return agents.exclude(assignment__bundle_deployment_id__in=others.values("pk"))


def start_enlisting(deployment: Deployment) -> EnlistmentCursor | None:
    """Return the cursor with which to enlist the target's agents, or None if there are no available agents.

    Agents that are offline at their enlistment do not count for waves and thresholds. If all agents are offline now,
    all of them count, because a rollout without counted agents fails.
    """
    found = available_agents(deployment).with_state()
    last = found.order_by("-id").first()
    if last is None:
        return None
    everybody_counts = not found.exclude(liveness="offline").exists()
    return EnlistmentCursor(0, found.count(), None, str(last.pk), everybody_counts)


def enlist(deployment: Deployment) -> None:
    """Enlist the next batch of the target's agents.

    Assigns waves in the order of agent ids. Records the deployment whose bundle was assigned to each agent before,
    unless the agent's offer is held. The agents get no offers yet. The caller has locked the deployment.
    """
    state = deployment.enlisting
    if state is None:
        return
    agents = available_agents(deployment).with_state().filter(pk__lte=state.until)
    if state.after is not None:
        agents = agents.filter(pk__gt=state.after)
    matched, parameters = agents.values("id", "liveness")[:AGENTS_PER_STEP].query.sql_with_params()
    bounds = deployment.strategy.wave_bounds(state.count)
    with connection.cursor() as cursor:
        cursor.execute(
            _ENLIST.format(agents=matched),
            [deployment.pk, list(bounds), len(bounds) - 1, state.place, state.everybody_counts, *parameters],
        )
        enlisted = [agent_id for (agent_id,) in cursor.fetchall()]
    if len(enlisted) < AGENTS_PER_STEP:
        deployment.enlisting = None
    else:
        deployment.enlisting = replace(state, place=state.place + len(enlisted), after=str(max(enlisted)))
    deployment.save(update_fields=["enlisting"])


def offer(deployment: Deployment, agent_ids: Iterable[UUID]) -> None:
    """Offer the deployment's bundle to enlisted agents. Offering the same bundle again creates a new offer."""
    if not (chosen := list(agent_ids)):
        return
    now = timezone.now()
    _assign(chosen, deployment, by=deployment, since=now)
    _change(deployment, chosen, action=OfferAction.ACTIVATE, progress=AgentProgress.OFFERED, offered_at=now, detail="")


def late_joiners(deployment: Deployment, matching: QuerySet[Agent]) -> Any:
    """Return the late joiners among ``matching``, the agents that match the target. ``offer_late`` makes the offers.

    Agents are left out if the deployment was already offered to them, if they are assigned its bundle, or if they have
    an offer of a deployment in flight. Without ``take_over``, agents of other pipelines are left out as well. There are
    no late joiners if the configuration is known bad, or while the environment has held offers.
    """
    if bundles.is_known_bad(deployment.environment_id, deployment.config_hash):
        return matching.none()
    if held(deployment.environment_id).exists():
        return matching.none()
    busy = Deployment.objects.filter(environment=deployment.environment, status__in=IN_FLIGHT)
    return (
        _without_other_pipelines(deployment, matching)
        # An agent that was drained when its wave started is enlisted without an offer, and may join late.
        .exclude(pk__in=deployment.agents.filter(offered_at__isnull=False).values("agent_id"))
        .exclude(assignment__bundle_deployment_id=deployment.pk)
        .exclude(assignment__deployment_id__in=busy.values("pk"))
    )


def offer_late(deployment: Deployment, *, only: Collection[UUID] | None = None) -> None:
    """Enlist late joiners, which do not count for waves and thresholds, and offer them the bundle.

    ``only`` limits this to the agents with these ids.
    """
    agents = select_agents(deployment.environment, deployment.target)
    if only is not None:
        agents = agents.filter(pk__in=unnest_ids(only))
    joined = list(late_joiners(deployment, agents).values_list("pk", "assignment__bundle_deployment_id"))
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
        # An agent that was enlisted without an offer becomes a late joiner. The failures of its existing row are kept.
        update_conflicts=True,
        unique_fields=["deployment", "agent"],
        update_fields=["wave", "counted", "before", "tuning"],
    )
    offer(deployment, [agent_id for agent_id, _ in joined])


def offer_again(deployment: Deployment, agent_ids: Iterable[UUID], *, renew_all: bool) -> None:
    """Offer the bundle again to these agents. ``renew_all`` restarts the timeouts of all other agents with an offer."""
    failed = list(agent_ids)
    offer(deployment, failed)
    if renew_all:
        others = deployment.agents.filter(offered_at__isnull=False).exclude(agent_id__in=unnest_ids(failed))
        others.update(offered_at=timezone.now())


def find_restored(
    deployment: Deployment, before_ids: Iterable[UUID | None], *, fallback: Deployment
) -> dict[UUID | None, Deployment]:
    """Return the deployment whose bundle a rollback of ``deployment`` offers to agents, by the agents' ``before_id``.

    It is the deployment with this id. If the id is None, or if that deployment cannot be restored, it is ``fallback``.
    """
    before = set(before_ids)
    others = rollback_candidates(deployment.environment_id).exclude(pk=deployment.pk)
    # A rollback never restores the configuration that it removes, even if that configuration is not known bad.
    others = others.exclude(config_hash=deployment.config_hash)
    earlier = without_large(others).filter(pk__in={each for each in before if each is not None}).in_bulk()
    return {each: fallback if each is None else earlier.get(each, fallback) for each in before}


def offer_rollback(deployment: Deployment, touched: QuerySet[DeploymentAgent], *, fallback: Deployment) -> None:
    """Offer each touched agent the bundle that ``find_restored`` chooses."""
    rows = list(touched.values_list("agent_id", "before_id"))
    restored = find_restored(deployment, (before_id for _, before_id in rows), fallback=fallback)
    groups: dict[Deployment, list[UUID]] = {}
    for agent_id, before_id in rows:
        groups.setdefault(restored[before_id], []).append(agent_id)
    now = timezone.now()
    for before, agent_ids in groups.items():
        _assign(agent_ids, before, by=deployment, since=now)
    # Enlist the agents in the deployment that they return to. A later rollback of that deployment must include them.
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
    """Withdraw the offers that agents have not started, and restore each agent's earlier assignment, if possible.

    Without this, an agent that was offline could later start a release that was aborted long ago.
    """
    open_offers = deployment.agents.filter(
        progress=AgentProgress.OFFERED, agent__assignment__deployment_id=deployment.pk
    ).order_by("agent_id")
    candidates = rollback_candidates(deployment.environment_id)
    earlier = without_large(candidates).filter(pk__in=open_offers.order_by().values("before")).in_bulk()
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
            agent_id__in=unnest_ids(agent_ids), deployment_id=deployment.pk, progress=AgentProgress.OFFERED
        )
        # Lock the rows before reading them, because an agent whose report is being recorded has started its offer.
        found = list(untouched.select_for_update(no_key=True).order_by("agent_id").values_list("agent_id", flat=True))
        if again is None:
            Assignment.objects.filter(agent_id__in=unnest_ids(found)).update(
                **_NO_OFFER, progress=AgentProgress.PENDING
            )
        else:
            before_id, since, progress = again
            offered = earlier[before_id]
            _assign(found, offered, by=offered, since=since, progress=progress, keeps_hold=True)
        _change(deployment, found, progress=AgentProgress.PENDING, offered_at=None)


def lock_assignments(agent_ids: Iterable[UUID]) -> None:
    """Lock the agents' assignments: wait for reports that are being recorded, and block further ones."""
    chosen = Assignment.objects.filter(agent_id__in=unnest_ids(agent_ids)).order_by("agent_id")
    list(chosen.select_for_update(no_key=True).values_list("agent_id", flat=True))


def record_report(
    deployment: Deployment, assignment: Assignment, progress: AgentProgress, *, detail: str, tuning: Any
) -> None:
    """Record an accepted report on the deployment's offer. The caller has locked and checked the assignment."""
    now = timezone.now()
    offered = {"deployment_id": deployment.pk, "bundle_hash": assignment.bundle_hash}
    changes: dict[str, Any] = {"progress": progress}
    attempted = {"deployment_id": assignment.attempted_deployment_id, "bundle_hash": assignment.attempted_bundle_hash}
    if offered != attempted:
        changes |= {f"attempted_{name}": value for name, value in offered.items()} | {"attempted_since": now}
    if progress is AgentProgress.FAILED:
        changes |= {f"failed_{name}": value for name, value in offered.items()}
        changes |= {"failed_since": now, "failed_detail": detail}
    Assignment.objects.filter(pk=assignment.pk).update(**changes)
    reported = {} if tuning is None else {"tuning": tuning}
    deployment.agents.filter(agent_id=assignment.pk).update(
        progress=progress, detail=detail, updated_at=now, **reported
    )
    if progress is AgentProgress.FAILED:
        _record_failures(deployment, [assignment.pk], detail, timed_out=False, at=now)


def time_out(deployment: Deployment, agent_ids: Iterable[UUID]) -> None:
    """Set the progress of agents that did not finish in time to failed. Later reports on the offer do not change it."""
    late = list(agent_ids)
    detail, now = f"did not finish within {deployment.policy.agent_timeout_s} s", timezone.now()
    Assignment.objects.filter(agent_id__in=unnest_ids(late), deployment_id=deployment.pk).update(
        progress=AgentProgress.FAILED,
        failed_deployment_id=F("deployment_id"),
        failed_bundle_hash=F("bundle_hash"),
        failed_since=now,
        failed_detail=detail,
    )
    _change(deployment, late, progress=AgentProgress.FAILED, detail=detail)
    _record_failures(deployment, late, detail, timed_out=True, at=now)


def hold_all(backup_at: datetime) -> int:
    """Hold the offers of all enrolled agents after a restore. Returns their number.

    ``backup_at`` is when the restored backup was made.
    """
    enrolled = Assignment.objects.filter(bundle_hash__isnull=False, agent__decommissioned_at=None)
    return enrolled.update(held_backup_at=backup_at)


def held(environment_id: UUID) -> QuerySet[Assignment]:
    """Return the assignments of the environment's enrolled agents whose offers are held."""
    return _held().filter(agent__environment_id=environment_id)


def environments_with_held_offers() -> QuerySet[Assignment, Any]:
    """Return the ids of the environments with agents whose offers are held."""
    return _held().values("agent__environment_id")


def is_held(deployment: Deployment) -> bool:
    """Return whether an offer of this deployment is held."""
    return held(deployment.environment_id).filter(deployment_id=deployment.pk).exists()


def _held() -> QuerySet[Assignment]:
    return Assignment.objects.filter(held_backup_at__isnull=False, agent__decommissioned_at=None)


def resume(offers: QuerySet[Assignment]) -> int:
    """Stop holding these offers, so that the agents get them. Returns their number."""
    return offers.update(held_backup_at=None)


def delete_deployment_agents(condition: Q) -> int:
    """Delete the deployment agents that meet the condition and return their number. Assignments are kept."""
    return delete_in_batches(DeploymentAgent.objects.filter(condition))


def _assign(
    agent_ids: Iterable[UUID],
    built: Deployment,
    *,
    by: Deployment,
    since: datetime | None,
    progress: str = AgentProgress.OFFERED,
    keeps_hold: bool = False,
) -> None:
    """Assign the bundle of ``built`` to the agents. ``by`` is ``built`` or the deployment that is being rolled back.

    With ``keeps_hold``, offers that are held stay held.
    """
    Assignment.objects.filter(agent_id__in=unnest_ids(agent_ids)).update(
        deployment_id=by.pk,
        bundle_deployment_id=built.pk,
        action=OfferAction.ACTIVATE if by == built else OfferAction.ROLLBACK,
        bundle_hash=built.bundle_hash or "",
        bundle_size=built.bundle_size or 0,
        since=since,
        progress=progress,
        **({} if keeps_hold else {"held_backup_at": None}),
    )


def _change(deployment: Deployment, agent_ids: Iterable[UUID], **fields: Any) -> None:
    deployment.agents.filter(agent_id__in=unnest_ids(agent_ids)).update(updated_at=timezone.now(), **fields)


def _record_failures(
    deployment: Deployment, agent_ids: list[UUID], detail: str, *, timed_out: bool, at: datetime
) -> None:
    """Record why agents failed. A new failure replaces the agent's earlier one with this deployment and action."""
    reasons = json.dumps({action: failures.reason_of(action, timed_out=timed_out) for action in OfferAction})
    with connection.cursor() as cursor:
        cursor.execute(_RECORD_FAILURES, [reasons, detail, failures.find_cause(detail), at, deployment.pk, agent_ids])
