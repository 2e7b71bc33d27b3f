"""The panels of an agent's page that explain why the agent runs its bundle and what happens next."""

from __future__ import annotations

from typing import Any

from apps.console.frame import relative_time, state_pill
from apps.console.frame.columns import page_url, text_link
from apps.releases.models import Approval, Deployment
from apps.releases.services import explanations
from byteor.engine.explain.findings import Finding


def explanation_panels(agent: Any) -> list[dict[str, Any]]:
    """Return the two panels. ``agent`` must have been read ``with_state()``."""
    explanation = explanations.explain_agent(agent)
    return [
        {
            "title": "Why the agent runs its bundle",
            "lead": explanation.summary,
            "rows": [(state_pill(finding.code), finding.detail, _about(finding)) for finding in explanation.because],
        },
        {
            "title": "What happens next",
            "rows": [(relative_time(event.at), event.detail) for event in explanation.next],
            "empty": "Nothing, because the agent was decommissioned.",
        },
    ]


def _about(finding: Finding) -> str:
    if finding.approval_id is not None:
        return text_link(page_url(Approval, "change", finding.approval_id), "approval")
    if finding.deployment_id is not None:
        return text_link(page_url(Deployment, "change", finding.deployment_id), "deployment")
    return ""
