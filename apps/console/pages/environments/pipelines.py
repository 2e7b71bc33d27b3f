"""What the page of an environment shows of its releases: what each pipeline runs, and what comes next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils.html import format_html

from apps.console.frame import relative_time, row_link, state_pill, with_note
from apps.console.pages.phrases import agent_count
from apps.fleet.services import facts
from apps.releases.models import Deployment
from apps.tenancy.models import Environment
from byteor.engine.machines import IN_FLIGHT, DeploymentStatus
from byteor_cloud.database.large_columns import without_large

MAX_DEPLOYMENTS = 100  # that run or wait
_CHOICES = 50


def pipelines_panel(environment: Environment, *, may_deploy: bool) -> dict[str, Any]:
    """Return the panel with a row for each pipeline: what is current, on how many agents, and what is next in line."""
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
        "empty": "Nothing is deployed here yet.",
        "url": f"{reverse('admin:releases_deployment_changelist')}?environment__id__exact={environment.pk}",
        "link": "All deployments",
    }
    url = reverse("admin:releases_configbundle_choose", args=[environment.pk])
    return {**panel, "button": {"text": "Deploy", "icon": "rocket_launch", "url": url}} if may_deploy else panel


def choices_panel(environment: Environment, bundles: QuerySet[Any]) -> dict[str, Any]:
    """Return the panel with the newest config bundles, each with the link to its deployment's form."""
    rows = list(bundles.filter(environment=environment).order_by("-pk")[: _CHOICES + 1])
    # Without a config bundle, a draft comes first.
    lists, link = ("releases_configbundle", "All config bundles") if rows else ("pipelines_draft", "Drafts")
    return {
        "title": f"Which config bundle to deploy to {environment}",
        "lead": f"These are the newest {_CHOICES}. The page of an older one has the button, too."
        if len(rows) > _CHOICES
        else "",
        "columns": ("Config bundle", "Version", "Created", ""),
        "rows": [
            (
                with_note(row_link(row), "known bad here" if row.known_bad else ""),
                row_link(row.version),
                with_note(relative_time(row.created_at), row.created_by),
                format_html(
                    '<a class="text-link" href="{}" aria-label="Deploy {}">Deploy</a>',
                    reverse("admin:releases_configbundle_deploy", args=[row.pk]), f"{row.version}, {row}",
                ),
            )
            for row in rows[:_CHOICES]
        ],
        "empty": "There is no config bundle yet. Promote a draft to a version first: its page creates config bundles.",
        "url": f"{reverse(f'admin:{lists}_changelist')}?environment__id__exact={environment.pk}",
        "link": link,
    }  # fmt: skip


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
