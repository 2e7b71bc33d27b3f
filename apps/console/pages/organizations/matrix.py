"""The panel of a project's page that shows what runs of each pipeline in each environment."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html

from apps.console.frame import row_link, short_id, state_pill
from apps.console.frame.columns import page_url, text_link
from apps.console.pages.deployments.phrases import agent_count
from apps.releases.models import Deployment
from apps.releases.services.matrix import Cell, read_matrix
from apps.tenancy.models import Environment, Project

_ENVIRONMENTS, _CELLS = 20, 1_000  # what the panel shows at most


def matrix_panel(project: Project) -> dict[str, Any]:
    """Return the panel, with a row for each pipeline and a column for each environment, in the environments' order."""
    matrix = read_matrix(project, max_environments=_ENVIRONMENTS, max_cells=_CELLS)
    shown = f"the first {len(matrix.pipelines)} pipelines in the first {len(matrix.environments)} environments"
    return {
        "title": "Pipelines by environment",
        "wide": True,
        "id": "matrix",
        "lead": f"Only {shown} are shown." if matrix.truncated else "",
        "columns": ("Pipeline", *(row_link(each) for each in matrix.environments)),
        "rows": [(row.name, *map(_cell, row.environments, [None, *matrix.environments])) for row in matrix.pipelines],
        "empty": "No deployments yet.",
    }


def _cell(cell: Cell, previous: Environment | None) -> str:
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
        '{} {}<div class="note">{} of {}</div>{} {}',
        _deployment_link(cell.deployment_id, f"v{cell.version.number}"), short_id(cell.config_hash), f"{cell.agents:,}",
        agent_count(cell.of), differs, under_way,
    )  # fmt: skip


def _deployment_link(deployment_id: Any, text: str) -> str:
    return text_link(page_url(Deployment, "change", deployment_id), text)
