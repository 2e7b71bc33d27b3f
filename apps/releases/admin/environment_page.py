"""What the page of an environment shows of its releases: what each pipeline runs, and what comes next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from django.urls import reverse
from django.utils.html import format_html

from apps.fleet import facts
from apps.releases.admin.phrases import agent_count
from apps.releases.models import Deployment
from apps.tenancy.console import relative_time, row_link, state_pill, with_note
from apps.tenancy.models import Environment
from byteor_cloud.engine.machines import IN_FLIGHT, DeploymentStatus

MAX_PIPELINES = 50


def pipelines_panel(environment: Environment) -> dict[str, Any]:
    """Return the panel with a row for each pipeline: what is current, on how many agents, and what is next in line."""
    mine = Deployment.objects.filter(environment=environment).select_related("config_bundle__version", "approval")
    current = {row.pipeline: row for row in mine.filter(is_current=True).order_by("-pipeline")[:MAX_PIPELINES]}
    waiting: defaultdict[str, list[Deployment]] = defaultdict(list)
    for row in mine.filter(status__in=[DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT]).order_by("pk")[:MAX_PIPELINES]:
        waiting[row.pipeline].append(row)
    running = facts.count(environment).bundles if current else {}
    return {
        "title": "Pipelines",
        "wide": True,
        "columns": ("Pipeline", "Runs", "Since", "Requested by", "Agents", "Next in line"),
        "rows": [
            (pipeline, *_current(current.get(pipeline), running), _next(waiting[pipeline]))
            for pipeline in sorted({*current, *waiting})
        ],
        "empty": "Nothing is deployed here. Deploy a config bundle.",
        "url": f"{reverse('admin:releases_configbundle_changelist')}?environment__id__exact={environment.pk}",
        "link": "Choose a config bundle to deploy",
    }


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
