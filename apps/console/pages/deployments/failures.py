"""The panel of a deployment's page that shows why agents failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.utils.html import format_html, format_html_join

from apps.console.frame import with_note
from apps.console.frame.columns import page_url, text_link
from apps.console.pages.deployments.phrases import FAILED_HOW, agent_count, describe_detail
from apps.fleet.models import Agent
from apps.releases.models import Deployment
from apps.releases.services.failures import Cause, plan_causes
from byteor_cloud.database.together import Plan


def plan_failures(deployment: Deployment) -> Plan[tuple[list[Cause], dict[UUID, str]]]:
    """Return the ``Plan`` for the deployment's failure causes, and for the names of their first agents."""
    causes = yield from plan_causes(deployment)
    if not (ids := {pk for cause in causes for pk in cause.agents}):
        return causes, {}
    (names,) = yield [Agent.objects.filter(pk__in=ids).values_list("pk", "name")]
    return causes, dict(names)


def failures_panel(
    causes: Sequence[Cause], names: Mapping[UUID, str], *, retry: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the panel of failure causes. ``retry`` is the button of the act that the panel offers, or None."""
    shown = {
        "id": "failures",
        "title": "Why agents failed",
        "wide": True,
        "columns": ("Cause", "Agents", "Now", "Names"),
        "rows": [
            (
                with_note(describe_detail(cause.reason, cause.detail), FAILED_HOW[cause.reason]),
                f"{cause.count:,}",
                _now(cause),
                _names(cause, names),
            )
            for cause in causes
        ],
    }
    if retry is None:
        return shown
    description = retry["attrs"].get("title", "")
    button = {"text": "Retry failed agents", "icon": "refresh", "url": retry["path"], "description": description}
    return {**shown, "button": button}


def _now(cause: Cause) -> str:
    """Return how many of the cause's agents are still failed. The others were offered a retry or a rollback."""
    if cause.still_failed == cause.count:
        return "failed"
    return f"{cause.still_failed:,} failed" if cause.still_failed else "retried or rolled back"


def _names(cause: Cause, names: Mapping[UUID, str]) -> str:
    known = [(text_link(page_url(Agent, "change", pk), names[pk]),) for pk in cause.agents if pk in names]
    links, more = format_html_join(", ", "{}", known), cause.count - len(known)
    if not more:
        return links
    return format_html("{} and {} more", links, f"{more:,}") if known else agent_count(more)
