"""Changes to the labels of many agents, and the offers that result from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.db import transaction
from django.db.models import QuerySet

from apps.fleet.models import Agent
from apps.fleet.services import labels
from apps.fleet.services.labels import LabelChange
from apps.fleet.services.selection import unnest_ids
from apps.releases.services import assignments
from apps.releases.services.late_joiners import match_current
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services.state import lock_row


@dataclass(frozen=True, slots=True)
class Relabeled:
    """The numbers of selected agents: all, those that change, and those that are offered a deployment as a result."""

    matched: int
    changed: int
    deployments_offered: int


@transaction.atomic
def relabel(
    environment: Environment, selector: Mapping[str, str], change: LabelChange, *, dry_run: bool = False, actor: Actor
) -> Relabeled:
    """Change the labels of the agents that match the selector. With ``dry_run``, only return the counts.

    If changed agents become late joiners of current deployments, the worker makes the offers. Raises
    InvalidInput if an agent would have too many labels, but not with ``dry_run``.
    """
    if not dry_run:
        # as in other changes to many agents; also, no deployment becomes current while the offers are counted
        lock_row(environment)
    agents = Agent.objects.enrolled().filter(environment=environment, labels__contains=dict(selector))
    result = preview(environment, agents, change)
    if not dry_run:
        labels.change_labels(environment, agents, change, selector=selector, actor=actor)
    return result


@transaction.atomic
def relabel_chosen(environment: Environment, agents: QuerySet[Agent], change: LabelChange, *, actor: Actor) -> int:
    """Change the labels of these enrolled agents of the environment. Return the number of changed agents.

    Raises InvalidInput if an agent would have too many labels, and NotFound if the environment was purged.
    """
    lock_row(environment)  # otherwise two changes to the same agents could wait for each other
    return labels.change_labels(environment, agents, change, selector=None, actor=actor)


def preview(environment: Environment, agents: QuerySet[Agent], change: LabelChange) -> Relabeled:
    """Return the effect that the change would have on these enrolled agents of the environment."""
    changing = labels.select_changing(agents, change)
    offers = _count_offers(environment, changing.filter(drained_at=None), labels="changed_labels")
    return Relabeled(agents.count(), changing.count(), offers)


def count_offers_when_undrained(environment: Environment, agents: QuerySet[Agent]) -> int:
    """Return how many of these drained agents of the environment would be offered a deployment when undrained."""
    return _count_offers(environment, agents, labels="labels")


def _count_offers(environment: Environment, agents: QuerySet[Agent], *, labels: str) -> int:
    """Return how many agents get an offer when they have the labels in this column or annotation."""
    return sum(
        assignments.late_joiners(deployment, Agent.objects.filter(pk__in=unnest_ids(joiners))).count()
        for deployment, joiners in match_current(environment, agents, labels=labels)
    )
