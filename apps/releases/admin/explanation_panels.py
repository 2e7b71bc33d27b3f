"""The explanation of an agent, as panels of the agent's page in the console."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from django.utils.html import format_html

from apps.releases.services import explanations
from apps.tenancy.console import relative_time, state_pill
from byteor_cloud.engine.explain.findings import Finding


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


def _about(finding: Finding) -> str:
    if finding.approval_id is not None:
        name, pk = "approval", finding.approval_id
    elif finding.deployment_id is not None:
        name, pk = "deployment", finding.deployment_id
    else:
        return ""
    return format_html(
        '<a class="text-link" href="{}">{}</a>', reverse(f"admin:releases_{name}_change", args=[pk]), name
    )
