"""The pipelines panel of an environment's page: each pipeline's current deployment, and the next one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from django.db.models import Q
from django.utils.html import format_html

from apps.console.frame import relative_time, row_link, state_pill, with_note
from apps.console.frame.columns import list_url, page_url
from apps.console.frame.scope import with_scope
from apps.console.pages.deployments.phrases import agent_count
from apps.fleet.services import facts
from apps.releases.models import ConfigBundle, Deployment
from apps.tenancy.models import Environment
from byteor.engine.machines import IN_FLIGHT, DeploymentStatus
from byteor_cloud.database.large_columns import without_large

MAX_DEPLOYMENTS = 100  # current, pending and running deployments that the panel reads


def pipelines_panel(environment: Environment, *, may_deploy: bool) -> dict[str, Any]:
    """Return the panel, with each pipeline's current deployment, the agents that run it, and the next deployment."""
    shown = Q(is_current=True) | Q(status__in=[DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT])
    mine = Deployment.objects.filter(shown, environment=environment).select_related("config_bundle__version")
    rows = list(without_large(mine).order_by("-is_current", "pk")[: MAX_DEPLOYMENTS + 1])
    current: dict[str, Deployment] = {}
    waiting: defaultdict[str, list[Deployment]] = defaultdict(list)
    for row in rows[:MAX_DEPLOYMENTS]:
        if row.is_current:
            current[row.pipeline] = row
        else:
            waiting[row.pipeline].append(row)
    running = facts.count_running(environment, {row.bundle_hash for row in current.values() if row.bundle_hash})
    panel = {
        "title": "Pipelines",
        "wide": True,
        "lead": f"Only {MAX_DEPLOYMENTS} deployments are shown." if len(rows) > MAX_DEPLOYMENTS else "",
        "columns": ("Pipeline", "Runs", "Since", "Requested by", "Agents", "Next in line"),
        "rows": [
            (pipeline, *_current(current.get(pipeline), running), _next(waiting[pipeline]))
            for pipeline in sorted({*current, *waiting})
        ],
        "empty": "No deployments yet.",
        "url": with_scope(f"{list_url(Deployment)}?environment__id__exact={environment.pk}", environment),
        "link": "All deployments",
    }
    url = page_url(ConfigBundle, "choose", environment.pk)
    return {**panel, "button": {"text": "Deploy", "icon": "rocket_launch", "url": url}} if may_deploy else panel


def _current(row: Deployment | None, running: Mapping[str, int]) -> tuple[Any, ...]:
    if row is None:
        return ("nothing", "-", "-", "-")
    count = running.get(row.bundle_hash or "", 0)
    return (
        with_note(row_link(row, str(row.config_bundle.version)), str(row.config_bundle)),
        relative_time(row.activated_at),
        row.requested_by,
        f"{count:,} of {agent_count(row.target_count)}",
    )


def _next(rows: list[Deployment]) -> str:
    if not rows:
        return "-"
    first, *others = rows
    more = f"and {len(others)} more" if others else ""
    return format_html(
        "{} {}", state_pill(first.status), with_note(row_link(first, str(first.config_bundle.version)), more)
    )
