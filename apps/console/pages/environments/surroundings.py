"""The environments before and after an environment in the order of its project, and the size of its fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, JSONObject

from apps.fleet.models import Agent, PulseCount
from apps.fleet.services.series import MOST_AGENTS_READ
from apps.tenancy.models import Environment


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An environment of the same project."""

    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The previous and the next environment by position, or None, and how many agents the environment has.

    ``agents`` is the number of enrolled agents, which may be slightly outdated. ``has_large_series`` is whether the
    environment has more than ``MOST_AGENTS_READ`` agents, enrolled or not.
    """

    previous: Neighbor | None
    next: Neighbor | None
    agents: int
    has_large_series: bool


def read_surroundings(environment: Environment) -> Surroundings:
    """Return the surroundings of the environment."""
    here = Environment.objects.filter(pk=environment.pk).order_by()
    others = Environment.objects.live().filter(project=OuterRef("project"))
    counted = PulseCount.objects.filter(environment=OuterRef("pk")).order_by().values("environment")
    previous, following, agents, has_large_series = here.values_list(
        _first(others.filter(position__lt=OuterRef("position")).order_by("-position")),
        _first(others.filter(position__gt=OuterRef("position")).order_by("position")),
        Coalesce(Subquery(counted.annotate(agents=Sum("count")).values("agents")), 0),
        Exists(Agent.objects.filter(environment=OuterRef("pk")).order_by()[MOST_AGENTS_READ : MOST_AGENTS_READ + 1]),
    ).get()
    return Surroundings(_neighbor(previous), _neighbor(following), agents, has_large_series)


def _first(rows: QuerySet[Environment]) -> Subquery:
    return Subquery(rows.values(found=JSONObject(id="pk", name="name"))[:1])


def _neighbor(found: dict[str, Any] | None) -> Neighbor | None:
    return None if found is None else Neighbor(UUID(found["id"]), found["name"])
