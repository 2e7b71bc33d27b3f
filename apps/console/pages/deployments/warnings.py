"""The warnings about a deployment on its page and on the pages of its approvals."""

from __future__ import annotations

from django.utils import timezone
from django.utils.html import format_html

from apps.console.frame import time_left
from apps.console.pages.deployments.phrases import describe_warnings
from apps.releases.models import Approval, Deployment
from apps.releases.services import bundles
from byteor.engine.machines import ApprovalStatus


def find_warnings(deployment: Deployment | None, approval: Approval | None = None) -> list[tuple[str, str, list[str]]]:
    """Return the warnings about a deployment. Each has a tone, a title and lines of text."""
    found = []
    broken = deployment.break_glass if deployment is not None else None
    if broken:
        waits = approval is not None and approval.status == ApprovalStatus.PENDING
        lines = [f"“{broken.reason}”", f"{broken.by} deployed before approval."]
        if waits and approval is not None:
            if approval.expires_at > timezone.now():
                left = time_left(approval.expires_at)
                lines.append(format_html("Time for another person to approve the deployment: {}.", left))
            lines.append("If nobody approves it in time, it is rolled back, if possible.")
        elif approval is not None:
            lines.append(f"The approval after break-glass is {approval.status}.")
        found.append(("bad", "Break glass", lines))
    if deployment is not None and deployment.freeze_override:
        found.append(("warn", "Freeze window overridden", [f"“{deployment.freeze_override}”"]))
    if deployment is not None and deployment.replay_gate_override:
        found.append(("warn", "Replay gate overridden", [f"“{deployment.replay_gate_override}”"]))
    if deployment is not None and (unchecked := describe_warnings(bundles.warnings_of(deployment.config_bundle))):
        found.append(("warn", "No parameters", unchecked))
    return found
