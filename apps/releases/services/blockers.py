"""Blockers of deployments: collect the facts for the engine's rules, and find deployments that cannot continue."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet, Value
from django.utils import timezone

from apps.fleet.services.selection import select_agents
from apps.releases.models import Deployment
from apps.releases.services import replay_gate, reviewers, wave_holds
from apps.tenancy.models import Environment
from byteor.engine import freeze
from byteor.engine.blockers import Blocker, BlockerCode, OtherDeployment, StartFacts, find_blockers
from byteor.engine.machines import IN_FLIGHT, UNDER_WAY, DeploymentStatus
from byteor.engine.target import Target
from byteor_cloud.database.together import Plan
from byteor_cloud.worker import dead_letters

_COLUMNS = (
    "pipeline", "status", "target", "policy", "freeze_override", "config_bundle__name", "replay_gate_override",
    "regression", "requester_id", "break_glass", "gate_until", "start_at",
)  # fmt: skip


def find_start_blockers(
    environment: Environment, waiting: Collection[UUID], now: datetime
) -> dict[UUID, list[Blocker]]:
    """Return the blockers of each approved deployment in ``waiting``, by id.

    The build does not start while there are blockers.
    """
    in_flight = list(read_in_flight(environment, now, also=waiting))
    newest = max(waiting, default=None)  # later deployments that are not under way block none of those in ``waiting``
    gated = replay_gate.find_blockers(row for row in in_flight if newest is not None and row.pk <= newest)
    open_window = freeze.last_open_window(environment.effective_settings.freeze_windows, now)
    found = {}
    for row in in_flight:
        if row.pk not in waiting or row.status != DeploymentStatus.APPROVED:
            continue
        others = [each for each in in_flight if _is_ahead(each, row, gated, now)]
        sharing = find_sharing(environment, row.target, [each for each in others if each.pipeline != row.pipeline])
        compared = tuple(describe(each, compared_with=row, shares_agents=each.pk in sharing) for each in others)
        facts = StartFacts(
            row.policy.max_in_flight_deployments,
            compared,
            open_window,
            overrides_freeze=bool(row.freeze_override),
            waits_until=row.start_at if _is_scheduled(row, now) else None,
        )
        found[row.pk] = [*find_blockers(facts), *gated.get(row.pk, ())]
    return found


def _is_ahead(other: Deployment, row: Deployment, gated: Mapping[UUID, Sequence[Blocker]], now: datetime) -> bool:
    """Return whether ``row`` may have to wait for ``other``.

    Nothing waits for a deployment that the gate blocks, or whose start time has not been reached.
    """
    return other.status in UNDER_WAY or (
        other.pk < row.pk and not gated.get(other.pk) and not _is_scheduled(other, now)
    )


def _is_scheduled(row: Deployment, now: datetime) -> bool:
    """Return whether the deployment is approved, but its start time has not been reached."""
    return row.status == DeploymentStatus.APPROVED and row.start_at is not None and row.start_at > now


def find_in_flight(environment: Environment) -> list[Deployment]:
    """Return the deployments in flight that count for the limit when a deployment is requested or retried.

    Deployments that the replay gate blocks, and those whose start time has not been reached, do not count.
    """
    rows = list(read_in_flight(environment, timezone.now()).defer("target"))
    gated = replay_gate.find_blockers(rows)
    return [row for row in rows if not gated.get(row.pk)]


def overlaps(deployment: Deployment, others: Iterable[Deployment]) -> bool:
    """Return whether any of ``others`` has the same pipeline as ``deployment``, or shares agents with it now."""
    others = list(others)
    return any(other.pipeline == deployment.pipeline for other in others) or bool(
        find_sharing(deployment.environment, deployment.target, others)
    )


def find_sharing(environment: Environment, target: Target, others: Sequence[Deployment]) -> set[UUID]:
    """Return the ids of the deployments whose targets share agents with ``target`` now."""
    mine = select_agents(environment, target)
    shared = [
        mine.filter(pk__in=select_agents(environment, other.target).order_by().values("pk"))
        .order_by()
        .values_list(Value(number))[:1]
        for number, other in enumerate(others)
    ]
    if not shared:
        return set()
    return {others[number].pk for (number,) in shared[0].union(*shared[1:], all=True)}


def read_in_flight(environment: Environment, now: datetime, *, also: Collection[UUID] = ()) -> QuerySet[Deployment]:
    """Return the environment's deployments in flight, oldest first, with the columns that the rules need.

    Approved deployments whose start time has not been reached are left out, except those in ``also``.
    """
    is_scheduled = Q(status=DeploymentStatus.APPROVED, start_at__isnull=False, start_at__gt=now)
    rows = Deployment.objects.filter(~is_scheduled | Q(pk__in=also), environment=environment, status__in=IN_FLIGHT)
    return rows.select_related("config_bundle").only(*_COLUMNS).order_by("pk")


def describe(
    row: Deployment, *, compared_with: Deployment | None = None, shares_agents: bool = False
) -> OtherDeployment:
    """Return the facts of a deployment in flight for the rules, compared with a waiting deployment if one is passed."""
    return OtherDeployment(
        row.pk,
        f"{row.pipeline}/{row.config_bundle.name}",
        DeploymentStatus(row.status),
        is_earlier=compared_with is not None and row.pk < compared_with.pk,
        has_same_pipeline=compared_with is not None and row.pipeline == compared_with.pipeline,
        shares_agents=shares_agents,
        overrides_freeze=bool(row.freeze_override),
    )


def list_blockers(
    deployment: Deployment, *, gated: Sequence[Blocker] | None = None, missing: Sequence[Blocker] | None = None
) -> list[Blocker]:
    """Return all blockers of the deployment.

    If it is not in flight, only the replay gate and a lack of reviewers can block it. ``gated`` are the blockers of the
    gate, and ``missing`` are those of ``plan_missing``, if the caller has read them.
    """
    missing = _find_missing(deployment) if missing is None else missing
    if deployment.status not in IN_FLIGHT:
        found = replay_gate.find_blockers([deployment]).get(deployment.pk, []) if gated is None else gated
        return [*found, *missing]
    found = [*missing]
    if (held := wave_holds.describe(deployment)) is not None:
        found.insert(0, Blocker(BlockerCode.WAVE_HOLD, held.sentence))
    if deployment.status == DeploymentStatus.APPROVED:
        waits = find_start_blockers(deployment.environment, [deployment.pk], timezone.now())
        found += waits.get(deployment.pk, [])
    stuck = find_held_up([deployment]).values()
    return [*found, *(Blocker(BlockerCode.HELD_UP, sentence) for sentence in stuck)]


def plan_missing(deployment: Deployment) -> Plan[list[Blocker] | None]:
    """Return the ``Plan`` for the blockers for a lack of reviewers.

    The result is None if the deployment has a hold, because the hold may have another approval.
    """
    if deployment.wave_hold is not None:
        return None
    asked = [deployment.approval] if deployment.reviewers and deployment.approval is not None else []
    return list((yield from reviewers.plan_missing(asked)).values())


def _find_missing(deployment: Deployment) -> list[Blocker]:
    """Return a blocker for each pending approval of the deployment that lacks reviewers."""
    if not deployment.reviewers:
        return []
    pending = [each for each in (deployment.approval, wave_holds.find_approval(deployment)) if each is not None]
    return list(reviewers.find_missing(pending).values())


def find_held_up(deployments: Iterable[Deployment]) -> dict[UUID, str]:
    """Return a sentence with the reason for each deployment that the control plane cannot continue now, by id."""
    by_key = {str(row.pk): row for row in deployments}
    reasons = {by_key[key].pk: held.sentence for key, held in dead_letters.find_obstacles(by_key).items()}
    for row in by_key.values():
        if row.status in UNDER_WAY and row.bundle_hash is not None and row.served_at is None:
            reasons.setdefault(
                row.pk,
                "Agents cannot download the bundle. Either it cannot be read from the blob store, or offers have been "
                "held since a restore. Agent timeouts are suspended.",
            )
    return reasons
