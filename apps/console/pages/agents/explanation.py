"""The explanation of an agent and the blockers of a deployment, as panels of their pages in the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.urls import reverse
from django.utils.html import format_html, format_html_join

from apps.console.frame import relative_time, state_pill
from apps.releases.services import explanations
from byteor.engine.blockers import NAMED, Blocker
from byteor.engine.explain.findings import Finding


def panels(agent: Any) -> list[dict[str, Any]]:
    """Return panels on why the agent runs what it runs and what happens next. Read ``agent`` ``with_state()``."""
    explanation = explanations.explain_agent(agent)
    return [
        {
            "title": "Why it runs this",
            "lead": explanation.summary,
            "rows": [(state_pill(finding.code), finding.detail, _about(finding)) for finding in explanation.because],
        },
        {
            "title": "What happens next",
            "rows": [(relative_time(event.at), event.detail) for event in explanation.next],
            "empty": "Nothing, because the agent has left the fleet.",
        },
    ]


def of_blockers(found: Sequence[Blocker]) -> list[dict[str, Any]]:
    """Return the panel that says what keeps a deployment from continuing; none if nothing does."""
    rows = [
        (
            state_pill(blocker.code),
            blocker.detail,
            format_html("until {}", relative_time(blocker.until)) if blocker.until else "",
            format_html_join(", ", "{}", ((_link("deployment", pk),) for pk in blocker.ids[:NAMED])),
        )
        for blocker in found
    ]
    return [{"title": "What it waits for", "rows": rows}] if rows else []


def _about(finding: Finding) -> str:
    if finding.approval_id is not None:
        return _link("approval", finding.approval_id)
    return _link("deployment", finding.deployment_id) if finding.deployment_id is not None else ""


def _link(name: str, pk: UUID) -> str:
    return format_html(
        '<a class="text-link" href="{}">{}</a>', reverse(f"admin:releases_{name}_change", args=[pk]), name
    )
