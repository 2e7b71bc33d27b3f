"""The overview.

From top to bottom, it shows the steps to the first deployment, what needs the person, key numbers, what runs where,
charts, and the latest deployments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Replay
from apps.console.frame import relative_time, row_link, site
from apps.console.frame.columns import environment_link, list_url, row_url
from apps.console.frame.console_user import ConsoleUser, console_user_of
from apps.console.frame.large import MOST_COUNTED
from apps.console.frame.scope import scope_of, with_scope
from apps.console.frame.site import listed_rows
from apps.console.pages import series
from apps.console.pages.home.needs import find_needs
from apps.console.pages.home.needs_query import read_home, read_steps
from apps.console.pages.home.steps import remember_steps, show_steps
from apps.console.pages.organizations.matrix import draw_matrix
from apps.fleet.models import Agent, Liveness
from apps.fleet.services import facts
from apps.fleet.services.series import MOST_AGENTS_READ
from apps.releases.models import Approval, Deployment
from apps.releases.services.matrix import read_matrices
from apps.tenancy.models import Environment, Project, Tenant
from apps.tenancy.permissions import Permission as P
from byteor.engine.counted import count_of
from byteor.engine.machines import IN_FLIGHT
from byteor_cloud.ids import smallest_uuid7

_SHOWN = 8  # rows of the latest deployments
_LATEST = 20  # deployments that are read, for the table and for the marks in the charts
_ENVIRONMENTS = 1_000  # environments whose agents are counted
# The limits of the matrices: projects, environments of each, current deployments, and as many unfinished ones.
_PROJECTS, _COLUMNS, _CELLS = 5, 20, 500
_CHARTED = 100  # environments whose series are summed


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the overview's content to the template context. The theme calls this function (``DASHBOARD_CALLBACK``)."""
    console_user, scope = console_user_of(request), scope_of(request)
    environments, is_cut = _read_environments(request)
    shown = [each for each in environments if not isinstance(scope, Environment) or each == scope]
    fleets = facts.count_by_environment(shown)
    home = read_home(console_user, scope)
    all_steps = show_steps(console_user, scope, home.steps)
    if all_steps and isinstance(scope, Environment):  # an environment that is added later needs no steps of its own
        all_steps = show_steps(console_user, scope, read_steps(console_user, scope.project))
    steps = remember_steps(request, all_steps)
    context = {**context, "steps": steps, "has_hidden_steps": len(all_steps) > len(steps)}
    tiles = [*_agents(request, fleets.values()), *_numbers(request, home.numbers)]
    by_environment = {each: fleets.get(each.pk, facts.Fleet()) for each in shown}
    needs = find_needs(home, by_environment, console_user, scope)
    if steps and not needs.lines and not any(tile.value for tile in tiles):
        return {**context, "needs": None, "tiles": [], "panels": []}
    latest = list(listed_rows(request, Deployment).order_by("-id")[:_LATEST])
    panels = [
        *_matrices(environments, by_environment, console_user, scope),
        _charts(shown, latest, by_environment, is_cut=is_cut),
        _latest_deployments(request, latest[:_SHOWN]),
    ]
    return {**context, "needs": needs, "tiles": tiles, "panels": panels}


def _read_environments(request: HttpRequest) -> tuple[list[Environment], bool]:
    """Return the environments in the scope, in order, and whether further ones are left out.

    In the scope of an environment, return all environments of its project, because the matrix compares neighbors.
    If possible, update the pulses of the environments in which agents have changed.
    """
    scope, page = scope_of(request), site.get_model_admin(Environment)
    project = scope.project if isinstance(scope, Environment) else scope
    rows = page.in_scope(page.narrow(Environment.objects.all(), console_user_of(request)), project)
    found = list(
        rows.select_related("project")
        .defer("settings")
        .annotate(has_changes=facts.has_changes())
        .order_by("project__organization__name", "project__name", "project", "position", "pk")[: _ENVIRONMENTS + 1]
    )
    facts.settle_if_possible([each.pk for each in found if each.has_changes])
    return found[:_ENVIRONMENTS], len(found) > _ENVIRONMENTS


@require_GET
def live_view(request: HttpRequest) -> HttpResponse:
    """Return the content of the overview with its current values."""
    return render(request, "console/home.html", overview(request, {}))


site.add_page("live/", "home_live", live_view)

# -- numbers that link to lists ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    """A labeled number that links to a list."""

    label: str
    value: int
    url: str
    tone: str

    @property
    def shown(self) -> str:
        """The number as the tile shows it."""
        return f"{self.value:,}" if self.value <= MOST_COUNTED or self.is_exact else f"{MOST_COUNTED:,}+"

    is_exact: bool = True


def _agents(request: HttpRequest, fleets: Iterable[facts.Fleet]) -> list[_Tile]:
    liveness, drifted, cloned = Counter[str](), 0, 0
    for fleet in fleets:
        liveness.update(fleet.liveness)
        drifted += fleet.by_drift[True]
        cloned += fleet.cloned
    tones = {Liveness.ONLINE: "good", Liveness.STALE: "warn", Liveness.OFFLINE: "bad"}
    tiles = [
        _tile(request, f"Agents {word}", liveness[word], Agent, f"enrolled=yes&liveness={word}", tone)
        for word, tone in tones.items()
    ]
    tiles.append(_tile(request, "Agents drifted", drifted, Agent, "enrolled=yes&drift=yes", "warn"))
    if cloned:
        tiles.append(_tile(request, "Suspected clones", cloned, Agent, "enrolled=yes&cloned=yes", "bad"))
    return tiles


def _numbers(request: HttpRequest, numbers: Mapping[str, int]) -> list[_Tile]:
    in_flight = f"status__in={','.join(IN_FLIGHT)}"
    tiles: list[tuple[str, str, type[Model], str, str]] = [
        ("Approvals waiting", "approvals", Approval, "status__exact=pending", "waiting"),
        ("Deployments in flight", "in_flight", Deployment, in_flight, "busy"),
        ("Replays diverged", "diverged", Replay, "status__exact=diverged", "warn"),
        ("Dead letters", "dead_letters", ProcrastinateJob, "status__exact=failed", "bad"),
    ]
    return [
        _tile(request, label, numbers[name], model, query, tone, is_exact=False)
        for label, name, model, query, tone in tiles
    ]


def _tile(
    request: HttpRequest, label: str, value: int, model: type[Model], query: str, tone: str, *, is_exact: bool = True
) -> _Tile:
    """Return a tile that links to the rows it counts. A value of 0 has the tone ``plain`` instead of ``tone``."""
    url = with_scope(f"{list_url(model)}?{query}", scope_of(request))
    return _Tile(label, value, url, tone if value else "plain", is_exact)


# -- panels -----------------------------------------------------------------------------------------------------


def _matrices(
    environments: Sequence[Environment],
    fleets: Mapping[Environment, facts.Fleet],
    console_user: ConsoleUser,
    scope: Tenant,
) -> list[dict[str, Any]]:
    """Return the matrices of the first projects. In the scope of an environment, only its column is shown."""
    projects = [list(group) for _, group in groupby(environments, key=lambda each: each.project)]
    if not projects:
        return []
    running = {
        (environment.pk, bundle): agents for environment, fleet in fleets.items()
        for bundle, agents in fleet.bundles.items()
    }  # fmt: skip
    shown = [each[:_COLUMNS] for each in projects[:_PROJECTS]]
    only = scope if isinstance(scope, Environment) else None
    if only is not None and only not in shown[0]:
        shown = [[only]]
    panels = []
    for every, matrix in zip(projects, read_matrices(shown, running, max_rows=_CELLS), strict=False):
        project = matrix.environments[0].project
        is_narrowed = only is None and len(every) > _COLUMNS
        panel = draw_matrix(
            replace(matrix, truncated=matrix.truncated or is_narrowed),
            "Pipelines by environment" if len(shown) == 1 else f"Pipelines of {project}",
            may_deploy=P.OPERATE_ENVIRONMENT in console_user.permissions(project),
            only=only, key=f"matrix-{project.pk}",
        )  # fmt: skip
        panels.append({**panel, "url": row_url(project), "link": "Project"})
    left_out = len(projects) - len(shown)
    if left_out:
        url = with_scope(list_url(Project), scope)
        panels[-1] |= {"more": {"url": url, "text": f"{count_of(left_out, 'more project')}"}}
    return panels


def _charts(
    environments: Sequence[Environment],
    latest: Sequence[Deployment],
    fleets: Mapping[Environment, facts.Fleet],
    *,
    is_cut: bool,
) -> dict[str, Any]:
    """Return the charts of the last day, for at most 100 environments, with marks for deployments of that day."""
    drawn = environments[:_CHARTED]
    names, since = {each.pk for each in drawn}, smallest_uuid7(timezone.now() - series.DAY)
    marked = [
        each for each in latest if each.pk >= since and each.served_at is not None and each.environment_id in names
    ]
    agents = sum(fleets[each].total for each in drawn)
    panel = series.environments_panel(drawn, marked, is_large=agents > MOST_AGENTS_READ)
    if is_cut or len(drawn) < len(environments):
        panel["lead"] = f"Only the first {_CHARTED} environments are included."
    return panel


def _latest_deployments(request: HttpRequest, latest: Sequence[Deployment]) -> dict[str, Any]:
    page = site.get_model_admin(Deployment)
    rows = [
        (
            row_link(row, row.pipeline),
            page.state(row),
            environment_link(row.environment),
            row.requested_by,
            relative_time(row.created_at),
        )
        for row in latest
    ]
    return {
        "title": "Latest deployments",
        "url": with_scope(list_url(Deployment), scope_of(request)),
        "columns": ("Pipeline", "Status", "Environment", "Requested by", "Requested"),
        "rows": rows,
        "empty": "No deployments.",
    }
