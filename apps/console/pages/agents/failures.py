"""The panel of an agent's page with the agent's failures: their causes, and what happened afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from apps.console.frame import relative_time, row_link, with_note
from apps.console.pages.agents.records import Deployments, time_of
from apps.console.pages.deployments.phrases import FAILED_HOW
from byteor.engine.failures import FailureReason
from byteor.engine.machines import AgentProgress, OfferAction


def agent_failures_panel(failures: Sequence[Mapping[str, Any]], deployments: Deployments) -> dict[str, Any]:
    """Return the panel with the failures that ``read_records`` found."""
    return {
        "id": "failures",
        "title": "Failures",
        "wide": True,
        "columns": ("When", "Cause", "What failed", "Since then"),
        "rows": [_row(each, deployments) for each in failures],
        "empty": "No failures are recorded.",
    }


def _row(failure: Mapping[str, Any], deployments: Deployments) -> tuple[Any, ...]:
    found = deployments.by_id.get(UUID(failure["deployment_id"]))
    return (
        relative_time(time_of(failure["at"])),
        with_note(failure["detail"] or "no detail", FAILED_HOW[FailureReason(failure["reason"])]),
        with_note(deployments.name(found.bundle_hash, found.pk), row_link(found, "Deployment")) if found else "-",
        _describe_since(failure),
    )


def _describe_since(failure: Mapping[str, Any]) -> str:
    """Return what happened to the agent in the deployment after the failure."""
    progress = AgentProgress(failure["now_progress"])
    has_failed = progress is AgentProgress.FAILED
    if failure["action"] != failure["now_action"] and failure["now_action"] == OfferAction.ROLLBACK:
        if has_failed:
            return "the rollback failed"
        return "rolled back" if progress is AgentProgress.ROLLED_BACK else "is being rolled back"
    if has_failed:
        return "still failed"
    if progress in {AgentProgress.ACTIVE, AgentProgress.ROLLED_BACK}:
        return "retried successfully"
    return f"is being retried: {progress}"
