"""Blockers of deployments: collect the facts for the engine's rules, and find deployments that cannot continue."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet, Value
from django.utils import timezone

from apps.fleet.services.selection import select_agents
from apps.releases.models import Deployment
from apps.tenancy.models import Environment
from byteor.engine import freeze
from byteor.engine.blockers import Blocker, BlockerCode, OtherDeployment, StartFacts, find_blockers
from byteor.engine.machines import IN_FLIGHT, UNDER_WAY, DeploymentStatus
from byteor.engine.target import Target
from byteor_cloud.worker import dead_letters

_COLUMNS = ("pipeline", "status", "target", "policy", "freeze_override", "config_bundle__name")


def find_start_blockers(
    environment: Environment, waiting: Collection[UUID], now: datetime
) -> dict[UUID, list[Blocker]]:
    """Return the blockers of each approved deployment in ``waiting``, by id. Without blockers the build can start.

    The build calls this function with the environment locked. The function makes one query, and at most one more for
    each deployment in ``waiting``.
    """
    in_flight = list(read_in_flight(environment))
    open_window = freeze.last_open_window(environment.effective_settings.freeze_windows, now)
    found = {}
    for row in in_flight:
        if row.pk not in waiting or row.status != DeploymentStatus.APPROVED:
            continue
        others = [each for each in in_flight if each.pk < row.pk or each.status in UNDER_WAY]
        sharing = find_sharing(environment, row.target, [each for each in others if each.pipeline != row.pipeline])
        compared = tuple(describe(each, compared_with=row, shares_agents=each.pk in sharing) for each in others)
        facts = StartFacts(
            row.policy.max_in_flight_deployments, compared, open_window, overrides_freeze=bool(row.freeze_override)
        )
        found[row.pk] = find_blockers(facts)
    return found


def overlaps(deployment: Deployment, others: Iterable[Deployment]) -> bool:
    """Return whether any of ``others`` has the same pipeline as ``deployment``, or shares agents with it now."""
    others = list(others)
    return any(other.pipeline == deployment.pipeline for other in others) or bool(
        find_sharing(deployment.environment, deployment.target, others)
    )


def find_sharing(environment: Environment, target: Target, others: Sequence[Deployment]) -> set[UUID]:
    """Return the ids of the deployments whose targets share agents with ``target`` now, in at most one query."""
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


def read_in_flight(environment: Environment) -> QuerySet[Deployment]:
    """Return the environment's deployments in flight, oldest first, with the columns that the rules need."""
    rows = Deployment.objects.filter(environment=environment, status__in=IN_FLIGHT)
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


def list_blockers(deployment: Deployment) -> list[Blocker]:
    """Return all blockers of the deployment. The list is empty if the deployment is not in flight."""
    if deployment.status not in IN_FLIGHT:
        return []
    found = []
    if deployment.status == DeploymentStatus.APPROVED:
        waits = find_start_blockers(deployment.environment, [deployment.pk], timezone.now())
        found = waits.get(deployment.pk, [])
    held = find_held_up([deployment]).values()
    return [*found, *(Blocker(BlockerCode.HELD_UP, sentence) for sentence in held)]


def find_held_up(deployments: Iterable[Deployment]) -> dict[UUID, str]:
    """Return a sentence with the reason for each deployment that the control plane cannot continue now, by id."""
    by_key = {str(row.pk): row for row in deployments}
    reasons = {by_key[key].pk: held.sentence for key, held in dead_letters.find_obstacles(by_key).items()}
    for row in by_key.values():
        if row.status in UNDER_WAY and row.bundle_hash is not None and row.served_at is None:
            reasons.setdefault(
                row.pk,
                "Agents cannot download the bundle, because the blob store cannot be read. "
                "Agent timeouts are suspended.",
            )
    return reasons
