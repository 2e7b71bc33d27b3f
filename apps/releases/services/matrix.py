"""The matrix of a project: what runs in each environment, by pipeline, and what is under way.

Agents are counted from stored sums. ``read_matrix`` first updates the sums for agents that have changed, unless the
database's disk is almost full.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, OuterRef, Q, QuerySet, Subquery, Sum, Value, When
from django.db.models.functions import JSONObject

from apps.fleet.models import PulseCount
from apps.fleet.services import facts
from apps.releases.models import ConfigBundle, Deployment, ProgressCount
from apps.tenancy.models import Environment, Project
from byteor.engine.machines import DeploymentStatus

MAX_ENVIRONMENTS: Final = 1_000
MAX_CELLS: Final = 2_000  # limits the size of a response
# The statuses of unfinished deployments. If a pipeline has several such deployments in an environment, the matrix shows
# the one whose status comes first here, and the oldest of several with this status.
UNFINISHED: Final = (
    DeploymentStatus.ROLLING_BACK,
    DeploymentStatus.DEPLOYING,
    DeploymentStatus.BUILDING,
    DeploymentStatus.APPROVED,
    DeploymentStatus.PENDING_APPROVAL,
)
_MAX_COPIES: Final = 100  # the maximum number of config bundles that are read for each configuration
_CURRENT: Final = (
    "pk", "environment_id", "pipeline", "config_bundle_id", "config_hash", "bundle_hash",
    "config_bundle__version_id", "config_bundle__version__number", "config_bundle__version__spec_hash",
)  # fmt: skip
_RANK = Case(*(When(status=status, then=Value(rank)) for rank, status in enumerate(UNFINISHED)))


@dataclass(frozen=True, slots=True)
class RunningVersion:
    """The version of a current deployment."""

    id: UUID
    number: int
    spec_hash: str


@dataclass(frozen=True, slots=True)
class UnderWay:
    """An unfinished deployment and its status."""

    deployment_id: UUID
    status: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A pipeline in an environment.

    Without a current deployment, ``deployment_id``, ``config_bundle_id``, ``version`` and ``config_hash`` are None.

    ``of`` is the number of agents that are enlisted in the current deployment, and ``agents`` how many of the
    environment's agents run its bundle. ``differs_from_previous`` is None for the first environment, and if the
    pipeline has no current deployment in this environment or the previous one.
    """

    environment_id: UUID
    deployment_id: UUID | None = None
    config_bundle_id: UUID | None = None
    version: RunningVersion | None = None
    config_hash: str | None = None
    agents: int = 0
    of: int = 0
    under_way: UnderWay | None = None
    differs_from_previous: bool | None = None
    # The id of a config bundle with the current configuration, by environment id. Empty in ``read_matrix``.
    copies: Mapping[UUID, UUID] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """A pipeline with one cell for each environment, in the order of the environments."""

    name: str
    environments: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Pipelines of a project in the order of their names. ``truncated`` is True if further ones may be left out.

    ``truncated`` is also True if environments are left out. ``next_after`` is the name after which further pipelines
    follow, or None. It is always None in the matrices of ``read_matrices``.
    """

    environments: Sequence[Environment]
    pipelines: Sequence[PipelineRow]
    truncated: bool
    next_after: str | None


def read_matrix(
    project: Project, *, after: str = "", max_cells: int = MAX_CELLS, max_environments: int = MAX_ENVIRONMENTS
) -> Matrix:
    """Return the matrix of the project's pipelines whose names follow ``after``.

    The matrix contains at most ``max_cells`` cells, but at least one pipeline if there is one, and only the first
    ``max_environments`` environments. A pipeline is included if it has a current or an unfinished deployment in one of
    these environments.
    """
    live = Environment.objects.filter(project=project, deleted_at=None).defer("settings").order_by("position", "pk")
    found = list(live[: max_environments + 1])
    environments = found[:max_environments]
    if not environments:
        return Matrix([], [], False, None)
    size = max(1, max_cells // len(environments))
    names = _find_names(environments, after, size + 1)
    shown = names[:size]
    current, under_way = _read_current(environments, shown), _read_under_way(environments, shown)
    running = _count_running(environments, {row["bundle_hash"] for row in current.values()})
    assigned = _count_assigned([row["pk"] for row in current.values()])
    rows = [PipelineRow(name, _cells(environments, name, current, under_way, running, assigned)) for name in shown]
    more = len(names) > size
    return Matrix(environments, rows, more or len(found) > max_environments, shown[-1] if more else None)


def read_matrices(
    projects: Sequence[Sequence[Environment]], running: Mapping[tuple[UUID, str], int], *, max_rows: int
) -> list[Matrix]:
    """Return the matrix of each project, which is given by its environments in order.

    ``running`` is the number of agents by environment and running bundle. At most ``max_rows`` current and as many
    unfinished deployments are shown, so the matrices may leave out the last pipelines by name.
    """
    environment_ids = [each.pk for environments in projects for each in environments]
    here = Deployment.objects.filter(environment__in=environment_ids)
    first = here.filter(status__in=UNFINISHED).order_by("pipeline", "environment_id", _RANK, "pk")
    parts = (
        _columns(here.filter(is_current=True).order_by("pipeline", "pk"), "current", environment_ids),
        _columns(first.distinct("pipeline", "environment_id"), "under_way", environment_ids),
    )
    limited = [part[: max_rows + 1] for part in parts]
    rows = {"current": list[Mapping[str, Any]](), "under_way": list[Mapping[str, Any]]()}
    for row in limited[0].union(limited[1], all=True):
        rows[row["part"]].append(row)
    # If rows are left out, the last name may lack some of its rows.
    last = min((max(row["pipeline"] for row in part) for part in rows.values() if len(part) > max_rows), default=None)
    current = {(row["environment_id"], row["pipeline"]): row for row in rows["current"]}
    under_way = {
        (row["environment_id"], row["pipeline"]): UnderWay(row["pk"], row["status"]) for row in rows["under_way"]
    }
    assigned = {row["pk"]: row["assigned"] or 0 for row in rows["current"]}
    matrices = []
    for environments in projects:
        ids = {each.pk for each in environments}
        names = {name for pk, name in (*current, *under_way) if pk in ids and (last is None or name < last)}
        shown = [
            PipelineRow(name, _cells(environments, name, current, under_way, running, assigned))
            for name in sorted(names)
        ]
        matrices.append(Matrix(environments, shown, last is not None, None))
    return matrices


def _columns(rows: QuerySet[Deployment], part: str, environment_ids: Collection[UUID]) -> QuerySet[Any, Any]:
    counted = ProgressCount.objects.filter(deployment=OuterRef("pk")).order_by().values("deployment")
    same = ConfigBundle.objects.filter(environment__in=environment_ids, config_hash=OuterRef("config_hash"))
    pairs = same.order_by("pk").values(pair=JSONObject(environment="environment_id", bundle="pk"))
    columns: QuerySet[Any, Any] = rows.annotate(
        part=Value(part),
        assigned=Subquery(counted.annotate(agents=Sum("count")).values("agents")),
        copies=ArraySubquery(pairs[:_MAX_COPIES]),
    ).values(*_CURRENT, "status", "part", "assigned", "copies")
    return columns


def _cells(
    environments: Sequence[Environment],
    name: str,
    current: Mapping[tuple[UUID, str], Mapping[str, Any]],
    under_way: Mapping[tuple[UUID, str], UnderWay],
    running: Mapping[tuple[UUID, str], int],
    assigned: Mapping[UUID, int],
) -> list[Cell]:
    cells: list[Cell] = []
    for environment in environments:
        key = (environment.pk, name)
        before = cells[-1] if cells else None
        cells.append(_cell(environment.pk, current.get(key), under_way.get(key), running, assigned, before))
    return cells


def _cell(
    environment_id: UUID,
    row: Mapping[str, Any] | None,
    under_way: UnderWay | None,
    running: Mapping[tuple[UUID, str], int],
    assigned: Mapping[UUID, int],
    before: Cell | None,
) -> Cell:
    if row is None:
        return Cell(environment_id, under_way=under_way)
    previous = None if before is None else before.config_hash
    return Cell(
        environment_id=environment_id,
        deployment_id=row["pk"],
        config_bundle_id=row["config_bundle_id"],
        version=RunningVersion(
            row["config_bundle__version_id"],
            row["config_bundle__version__number"],
            row["config_bundle__version__spec_hash"],
        ),
        config_hash=row["config_hash"],
        agents=running.get((environment_id, row["bundle_hash"]), 0),
        of=assigned.get(row["pk"], 0),
        under_way=under_way,
        # A config hash is the hash of the spec hash and the configuration, so equal config hashes mean equal specs.
        differs_from_previous=None if previous is None else previous != row["config_hash"],
        copies={UUID(each["environment"]): UUID(each["bundle"]) for each in row.get("copies", ())},
    )


def _find_names(environments: Collection[Environment], after: str, limit: int) -> list[str]:
    """Return the names of the first pipelines after ``after``."""
    # Two queries in one, because each condition has an index of its own.
    conditions = (Q(is_current=True), Q(status__in=UNFINISHED))
    here = Deployment.objects.filter(environment__in=environments, pipeline__gt=after).order_by()
    first, second = (here.filter(condition).values_list("pipeline") for condition in conditions)
    return [name for (name,) in first.union(second).order_by("pipeline")[:limit]]


def _read_current(
    environments: Collection[Environment], names: Collection[str]
) -> dict[tuple[UUID, str], Mapping[str, Any]]:
    rows = Deployment.objects.filter(environment__in=environments, is_current=True, pipeline__in=names).values(
        *_CURRENT
    )
    return {(row["environment_id"], row["pipeline"]): row for row in rows.order_by()}


def _read_under_way(environments: Collection[Environment], names: Collection[str]) -> dict[tuple[UUID, str], UnderWay]:
    """Return the unfinished deployment to show for each environment and pipeline."""
    rows = Deployment.objects.filter(environment__in=environments, status__in=UNFINISHED, pipeline__in=names)
    first = rows.order_by("environment_id", "pipeline", _RANK, "pk").distinct("environment_id", "pipeline")
    found = first.values_list("environment_id", "pipeline", "pk", "status")
    return {(environment_id, name): UnderWay(pk, status) for environment_id, name, pk, status in found}


def _count_running(
    environments: Collection[Environment], bundle_hashes: Collection[str]
) -> dict[tuple[UUID, str], int]:
    """Return the number of agents by environment and running bundle."""
    facts.catch_up(environments)
    counted = PulseCount.objects.filter(environment__in=environments, running_bundle_hash__in=bundle_hashes)
    groups = counted.order_by().values_list("environment_id", "running_bundle_hash").annotate(agents=Sum("count"))
    return {(environment_id, bundle_hash): agents for environment_id, bundle_hash, agents in groups}


def _count_assigned(deployment_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return the number of each deployment's enlisted agents, including late joiners."""
    counted = ProgressCount.objects.filter(deployment__in=deployment_ids).order_by()
    return dict(counted.values_list("deployment_id").annotate(agents=Sum("count")))
