"""An agent's explanation as panels of its page in the console."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from django.utils.html import format_html

from apps.releases.services import explanations
from apps.tenancy.console import ago, pill
from byteor_cloud.engine.explain.findings import Finding


def panels(agent: Any) -> list[dict[str, Any]]:
    """Why it runs what it runs, and what happens next. ``agent`` comes ``with_state``."""
    told = explanations.explain_agent(agent)
    return [
        {
            "title": "Why it runs this",
            "lead": told.summary,
            "rows": [(pill(finding.code), finding.detail, _about(finding)) for finding in told.because],
        },
        {
            "title": "What happens next",
            "rows": [(ago(event.at), event.detail) for event in told.next],
            "empty": "Nothing: it left the fleet.",
        },
    ]


def _about(finding: Finding) -> str:
    if finding.approval_id is not None:
        name, pk = "approval", finding.approval_id
    elif finding.deployment_id is not None:
        name, pk = "deployment", finding.deployment_id
    else:
        return ""
    return format_html('<a class="to" href="{}">{}</a>', reverse(f"admin:releases_{name}_change", args=[pk]), name)
