"""The panel that shows the matrix of a project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join

from apps.console.frame import row_link, short_id, state_pill
from apps.console.frame.columns import act_url, page_url, text_link
from apps.console.pages.bundles.copying import COPY_BUNDLE
from apps.console.pages.deployments.phrases import agent_count
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.services.matrix import Cell, Matrix, PipelineRow, read_matrix
from apps.tenancy.models import Environment, Project
from byteor.engine.counted import count_of

_ENVIRONMENTS, _CELLS = 20, 1_000  # the maximum numbers that the panel shows


def matrix_panel(project: Project, *, may_deploy: bool) -> dict[str, Any]:
    """Return the panel of the project's matrix, with at most ``_ENVIRONMENTS`` columns and ``_CELLS`` cells.

    ``may_deploy`` states whether the person may deploy in the project.
    """
    matrix = read_matrix(project, max_environments=_ENVIRONMENTS, max_cells=_CELLS)
    return draw_matrix(matrix, "Pipelines by environment", may_deploy=may_deploy)


def draw_matrix(
    matrix: Matrix, title: str, *, may_deploy: bool, only: Environment | None = None, key: str = "matrix"
) -> dict[str, Any]:
    """Return the panel of a matrix. ``may_deploy`` states whether the person may deploy in the project.

    If the environment ``only`` is given, other columns are left out. ``key`` is the id of the panel's element.
    """
    pipelines, columns = count_of(len(matrix.pipelines), "pipeline"), count_of(len(matrix.environments), "environment")
    limit = f"The table shows {pipelines} in {columns}. Others may be missing."
    if only is not None:
        limit = "Some pipelines may be missing."
    places = [place for place, each in enumerate(matrix.environments) if only is None or each == only]
    rows = []
    for row in matrix.pipelines:
        cells = [_cell(row, place, matrix.environments, may_deploy=may_deploy) for place in places]
        if any(_is_used(row.environments[place]) for place in places):
            rows.append((row.name, *cells))
    return {
        "title": title,
        "wide": True,
        "id": key,
        "lead": limit if matrix.truncated else "",
        "columns": ("Pipeline", *(row_link(matrix.environments[place]) for place in places)),
        "rows": rows,
        "empty": "" if matrix.truncated else "No pipeline is deployed, and no deployment is under way.",
    }


def _is_used(cell: Cell) -> bool:
    return cell.version is not None or cell.under_way is not None


def _cell(row: PipelineRow, place: int, environments: Sequence[Environment], *, may_deploy: bool) -> str:
    """Return what runs and what is under way, with links to deploy and to copy what runs if the person may."""
    cell = row.environments[place]
    shown = _state(cell, environments[place - 1] if place else None)
    links = format_html_join(" ", "{}", ((each,) for each in _acts(row, place, environments))) if may_deploy else ""
    return format_html('{}<div class="cell-acts">{}</div>', shown, links) if links else shown


def _acts(row: PipelineRow, place: int, environments: Sequence[Environment]) -> Iterator[str]:
    """Yield the links of a cell: to deploy, and to copy what runs to the next environment.

    The first link deploys what runs in the previous environment, if this environment has a copy that it does not run.
    Otherwise, it leads to the choice of a config bundle. There is no second link if the next environment has a copy.
    Without ``copies`` of the cells, only copies that run are known.
    """
    cell, environment = row.environments[place], environments[place]
    before = row.environments[place - 1] if place else None
    following = row.environments[place + 1] if place + 1 < len(environments) else None
    url, what = page_url(ConfigBundle, "choose", environment.pk), "Deploy"
    if before is not None and before.version is not None and before.config_hash != cell.config_hash:
        copy = before.copies.get(environment.pk)
        if copy is not None:
            # Another environment numbers the same version differently.
            what = f"Deploy v{before.version.number} of {environments[place - 1]}"
            url = page_url(ConfigBundle, "deploy", copy)
    yield _act_link(url, what, f"{what}: {row.name} to {environment}")
    if following is None or cell.version is None or following.config_hash == cell.config_hash:
        return
    if following.environment_id not in cell.copies:
        to = f"Copy to {environments[place + 1]}"
        url = act_url(ConfigBundle(pk=cell.config_bundle_id), COPY_BUNDLE.name)
        yield _act_link(url, to, f"{to}: {row.name} v{cell.version.number}")


def _act_link(url: str, text: str, name: str) -> str:
    return format_html('<a class="text-link" href="{}" aria-label="{}">{}</a>', url, name, text)


def _state(cell: Cell, previous: Environment | None) -> str:
    """Return what runs, and what is under way. ``previous`` is the environment before that of the cell, if any."""
    under_way = ""
    if cell.under_way is not None:
        under_way = _deployment_link(cell.under_way.deployment_id, state_pill(cell.under_way.status))
    if cell.version is None:
        return under_way or "nothing"
    differs = ""
    if cell.differs_from_previous:
        differs = format_html('<span class="pill warn">differs from {}</span>', previous)
    return format_html(
        '{}<div>{}</div><div class="note">{} of {}</div>{} {}',
        _deployment_link(cell.deployment_id, f"v{cell.version.number}"), short_id(cell.config_hash), f"{cell.agents:,}",
        agent_count(cell.of), differs, under_way,
    )  # fmt: skip


def _deployment_link(deployment_id: Any, text: str) -> str:
    return text_link(page_url(Deployment, "change", deployment_id), text)
