"""Bulk acts on agents: previews of their effects, and label changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from django.db import transaction
from django.db.models import QuerySet

from apps.console.frame import ActContext
from apps.console.pages.deployments.phrases import agent_count
from apps.fleet.models import Agent, AgentKey
from apps.fleet.services import labels
from apps.releases.services import relabeling
from apps.tenancy.models import Environment
from byteor.engine.machines import FINISHED


def _by_environment(rows: Sequence[Agent]) -> Iterator[tuple[Environment, QuerySet[Agent]]]:
    """Yield each environment with its enrolled agents among the rows, in the order in which environments are locked."""
    for _, some in groupby(sorted(rows, key=lambda row: str(row.environment_id)), key=lambda row: row.environment_id):
        chosen = list(some)
        yield chosen[0].environment, Agent.objects.enrolled().filter(pk__in=[row.pk for row in chosen])


def relabel_all(rows: Sequence[Agent], context: ActContext) -> int:
    """Change the labels of the enrolled agents among the rows, all or none. Returns the number of changed agents."""
    change = labels.read_change(context.comment)
    with transaction.atomic():
        return sum(
            relabeling.relabel_chosen(environment, agents, change, actor=context.actor)
            for environment, agents in _by_environment(rows)
        )


def preview_relabel(rows: Sequence[Agent], text: str) -> list[str]:
    """Return how many agents would change, and how many would then be offered a deployment."""
    change = labels.read_change(text)
    found = [relabeling.preview(environment, agents, change) for environment, agents in _by_environment(rows)]
    offers = sum(each.deployments_offered for each in found)
    return [_counts(rows, sum(each.changed for each in found)), _offers(offers)]


def preview_drain(rows: Sequence[Agent], comment: str) -> list[str]:
    """Return how many agents would be drained, and how many of them may finish an offer."""
    changing = [row for row in rows if row.decommissioned_at is None and row.drained_at is None]
    busy = sum(row.assignment.deployment_id is not None and row.assignment.progress not in FINISHED for row in changing)
    told = (
        f"{agent_count(busy)} {'was' if busy == 1 else 'were'} already offered a deployment, and can still finish it."
        if busy
        else ""
    )
    return [_counts(rows, len(changing)), *filter(None, [told])]


def preview_undrain(rows: Sequence[Agent], comment: str) -> list[str]:
    """Return how many agents would be undrained, and how many would then be offered a deployment."""
    changing = [row for row in rows if row.decommissioned_at is None and row.drained_at is not None]
    offers = sum(relabeling.count_offers_when_undrained(*each) for each in _by_environment(changing))
    return [_counts(rows, len(changing)), _offers(offers)]


def preview_decommission(rows: Sequence[Agent], comment: str) -> list[str]:
    """Return how many agents would be decommissioned, and how many keys would be revoked."""
    changing = [row.pk for row in rows if row.decommissioned_at is None]
    keys = AgentKey.objects.filter(agent__in=changing).usable().count()
    told = (
        f"{keys:,} key{' is' if keys == 1 else 's are'} revoked immediately, "
        f"and the agent{'' if len(changing) == 1 else 's'} can no longer report."
        if changing
        else ""
    )
    return [_counts(rows, len(changing)), *filter(None, [told])]


def _counts(rows: Sequence[Agent], changing: int) -> str:
    return f"{changing:,} of {len(rows):,} selected agent{'' if len(rows) == 1 else 's'} will change."


def _offers(count: int) -> str:
    return f"{agent_count(count)} {'is' if count == 1 else 'are'} then offered a current deployment."
