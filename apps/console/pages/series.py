"""The panels that show series of agents and environments as charts, with the deployments of the same time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from django.utils import timezone

from apps.console.frame.charts import Line, Mark, draw_charts
from apps.console.frame.columns import row_url
from apps.fleet.models import Agent
from apps.fleet.services import series
from apps.releases.models import Deployment
from apps.tenancy.models import Environment

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)
_STEP: Final = timedelta(seconds=series.SLOT_S)
_EMPTY: Final = "No values in this time. Values appear within 20 minutes of the first heartbeat."
MARKS: Final = 12  # the maximum number of deployments that an environment's page marks


def environments_panel(
    environments: Sequence[Environment], deployments: Iterable[Deployment], *, is_large: bool
) -> dict[str, Any]:
    """Return the panel of the last day, summed for all agents of the environments, with marks for these deployments.

    ``is_large`` is whether the environments have more than ``MOST_AGENTS_READ`` agents.
    """
    now = timezone.now()
    points = series.read_environments(environments, now - DAY, now, is_large=is_large)
    lines = [
        Line(
            "Agents with heartbeats", [point.online if point.online else None for point in points], "good", combine=max
        ),
        Line("Records in", [point.records_in for point in points]),
        Line("Drops", [point.drops for point in points], "warn"),
        Line("Errors", [point.errors for point in points], "bad"),
    ]
    return _panel("Last 24 hours", points, lines, _marks(deployments))


def agent_panel(agent: Agent, span: timedelta, deployments: Iterable[Deployment]) -> dict[str, Any]:
    """Return the panel of an agent for the last ``span``, with marks for these deployments."""
    now = timezone.now()
    points = series.read_agent(agent, now - span, now)
    lines = [
        Line("Records in", [point.records_in for point in points]),
        Line("Drops", [point.drops for point in points], "warn"),
        Line("Errors", [point.errors for point in points], "bad"),
        Line("CPU", [point.cpu_percent for point in points], "plain", "{:.1f} %".format, max),
        Line("Memory", [point.memory_bytes for point in points], "plain", _show_bytes, max),
        Line("Restarts", [point.restarts for point in points], "warn"),
    ]
    title = "Last 24 hours" if span == DAY else f"Last {span.days} days"
    return _panel(title, points, lines, _marks(deployments))


def _panel(title: str, points: Sequence[series.Point], lines: Sequence[Line], marks: Iterable[Mark]) -> dict[str, Any]:
    charts = draw_charts([point.at for point in points], _STEP, lines, marks, empty=_EMPTY)
    return {"title": title, "wide": True, "id": "series", "body": "console/charts.html", "charts": charts}


def _marks(deployments: Iterable[Deployment]) -> Iterable[Mark]:
    """Yield a mark for each deployment, at its ``approved_at`` or, if that is null, at the time of its request."""
    for each in deployments:
        where = f"{each.config_bundle.version} to {each.environment}"
        yield Mark(each.approved_at or each.created_at, where, row_url(each))


def _show_bytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"
