"""The headline of an agent's page: what the agent runs, what it should run, and when it was last seen."""

from __future__ import annotations

from typing import Any, Final

from django.utils.html import format_html
from django.utils.text import Truncator

from apps.console.frame import relative_time, state_pill
from apps.console.pages.agents.records import Deployments
from apps.fleet.models import Liveness
from byteor.engine.machines import AgentProgress, OfferAction

_MAX_DETAIL: Final = 200  # characters of a failure's detail
_STARTED: Final = frozenset({AgentProgress.DOWNLOADING, AgentProgress.ACTIVATING})


def agent_pills(agent: Any) -> list[str]:
    """Return the agent's states as pills; only "decommissioned" for a decommissioned agent."""
    if agent.decommissioned_at is not None:
        return [state_pill("decommissioned")]
    words = [agent.liveness, agent.heartbeat.status or ""]
    words += [word for word in ("drifted", "drained", "cloned") if getattr(agent, word)]
    return [state_pill(word) for word in words if word]


def agent_headline(agent: Any, deployments: Deployments) -> str:
    """Return one or two sentences with links. ``agent`` must have been read ``with_state()``."""
    heartbeat = agent.heartbeat
    running = _running(agent, deployments)
    if agent.decommissioned_at is not None:
        last = format_html(" It last ran {}.", running) if running else ""
        return format_html("Decommissioned {}.{}", relative_time(agent.decommissioned_at), last)
    what = _what_it_runs(agent, deployments, running)
    seen_at = heartbeat.last_seen_at
    if seen_at is None:
        return format_html("Enrolled {}; no heartbeat yet. {}", relative_time(agent.created_at), what)
    if agent.liveness == Liveness.ONLINE:
        status = (heartbeat.status or "online").capitalize()
        return format_html("{} {}, last seen {}.", what, status, relative_time(seen_at))
    return format_html("{}, last seen {}. {}", agent.liveness.capitalize(), relative_time(seen_at), what)


def _running(agent: Any, deployments: Deployments) -> str:
    """Return the name of what the agent runs; empty if it runs nothing."""
    heartbeat = agent.heartbeat
    if heartbeat.running_bundle_hash is None:
        return ""
    return deployments.name(heartbeat.running_bundle_hash, heartbeat.running_deployment_id)


def _what_it_runs(agent: Any, deployments: Deployments, running: str) -> str:
    assignment, heartbeat = agent.assignment, agent.heartbeat
    desired = assignment.bundle_hash
    runs_now = format_html("Runs {}", running) if running else "Runs nothing"
    if desired is None:
        return format_html("{}, and has no offer.", runs_now)
    if failure := _failure(agent, deployments, running):
        return failure
    if heartbeat.running_bundle_hash == desired:
        return format_html("{}, as desired.", runs_now)
    wanted, since = _short_name(agent, deployments), relative_time(assignment.since)
    if assignment.progress in _STARTED:
        return format_html("{} and is {} {}, offered {}.", runs_now, assignment.progress, wanted, since)
    return format_html("{} instead of {}, which it was offered {}.", runs_now, wanted, since)


def _failure(agent: Any, deployments: Deployments, running: str) -> str:
    """Return a sentence about the failure of the offer, or in the deployment that is rolled back; empty if none."""
    assignment = agent.assignment
    is_rollback = assignment.action == OfferAction.ROLLBACK
    has_failed = assignment.progress == AgentProgress.FAILED
    is_of_offer = assignment.failed_deployment_id == assignment.deployment_id
    if assignment.failed_bundle_hash is None or not (has_failed or (is_rollback and is_of_offer)):
        return ""
    detail = Truncator(assignment.failed_detail.strip().rstrip(".")).chars(_MAX_DETAIL)
    why = f": {detail}" if detail else ""
    runs = format_html("runs {}", running) if running else "runs nothing"
    desired = deployments.name(assignment.bundle_hash, assignment.bundle_deployment_id)
    if has_failed and is_rollback:
        return format_html("Failed to roll back to {}{}; {}.", desired, why, runs)
    failed = deployments.name(assignment.failed_bundle_hash, assignment.failed_deployment_id)
    if not is_rollback:
        return format_html("Failed to activate {}{}; {}.", failed, why, runs)
    is_back = agent.heartbeat.running_bundle_hash == assignment.bundle_hash
    then = "rolled back" if is_back else "rolling back"
    return format_html("Failed to activate {}{}; {} to {}.", failed, why, then, desired)


def _short_name(agent: Any, deployments: Deployments) -> str:
    """Return the desired bundle's version, or the config bundle's name if the agent runs the same version.

    Returns ``Deployments.name`` of the desired bundle if the agent runs nothing or another pipeline, or if one of the
    bundles is unknown.
    """
    assignment, heartbeat = agent.assignment, agent.heartbeat
    wanted = deployments.find(assignment.bundle_hash, assignment.bundle_deployment_id)
    runs = deployments.find(heartbeat.running_bundle_hash, heartbeat.running_deployment_id)
    if wanted is None or runs is None or wanted.pipeline != runs.pipeline:
        return deployments.name(assignment.bundle_hash, assignment.bundle_deployment_id)
    version = wanted.config_bundle.version
    if version.pk != runs.config_bundle.version.pk:
        return f"v{version.number}"
    return f"bundle {wanted.config_bundle.name}"
