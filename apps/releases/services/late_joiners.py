"""Offers to late joiners: new, relabeled or undrained agents that a current deployment has not reached."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from apps.fleet.models import Agent
from apps.fleet.services.selection import unnest_ids
from apps.releases.models import Deployment
from apps.releases.services import assignments, deployment_jobs
from apps.tenancy.models import Environment
from apps.tenancy.services.state import lock_row
from byteor_cloud.database.large_columns import each_row


def offer_to_late_joiners(agent_ids: Collection[str]) -> None:
    """Offer each agent the newest current deployment whose target matches it, if it is a late joiner of that one."""
    agents = Agent.objects.taking_offers().filter(pk__in=unnest_ids(agent_ids))
    for environment in Environment.objects.filter(pk__in=agents.values("environment")).order_by("pk"):
        with transaction.atomic():
            lock_row(environment)
            _offer(environment, agents.filter(environment=environment))


@transaction.atomic
def offer_after_hold(environment_id: str) -> None:
    """Offer the environment's late joiners what they did not get while offers were held.

    While offers are held, this function enqueues its job again.
    """
    found = Environment.objects.filter(pk=environment_id).first()
    if found is None:
        return
    environment = lock_row(found, related=("project",))
    if assignments.held(environment.pk).exists():
        deployment_jobs.enqueue_offer_after_hold(environment)
    else:
        offer_to_all_late_joiners(environment)


def offer_to_all_late_joiners(environment: Environment) -> None:
    """Offer the agents of the locked environment what ``offer_to_late_joiners`` would offer them."""
    _offer(environment, Agent.objects.taking_offers().filter(environment=environment))


def _offer(environment: Environment, agents: QuerySet[Agent]) -> None:
    for deployment, joiners in match_current(environment, agents):
        assignments.offer_late(deployment, only=joiners)


def match_current(
    environment: Environment, agents: QuerySet[Agent], *, labels: str = "labels"
) -> Iterator[tuple[Deployment, list[UUID]]]:
    """Yield the current deployments, newest first, each with the ids of agents that match its target.

    An agent that matches several targets is listed only for the newest of these deployments. Deployments for which no
    agents remain are left out. ``labels`` is the column or annotation that a selector must match: the labels that the
    agents have, or would have after a change.
    """
    matched: set[UUID] = set()
    for deployment in each_row(Deployment.objects.filter(environment=environment, is_current=True).order_by("-id")):
        target, found = deployment.target, agents
        if target.agents is not None:
            found = found.filter(pk__in=unnest_ids(target.agents))
        elif target.selector is not None:
            found = found.filter(**{f"{labels}__contains": target.selector})
        joiners = [pk for pk in found.order_by("pk").values_list("pk", flat=True) if pk not in matched]
        matched.update(joiners)
        if joiners:
            yield deployment, joiners
