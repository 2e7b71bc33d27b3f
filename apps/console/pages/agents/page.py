"""The page of an agent: what it runs and why, its history, series, failures, captures and states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.html import format_html

from apps.console.frame import relative_time, row_link, short_id, with_note
from apps.console.frame.columns import environment_link, page_url, text_link
from apps.console.pages.agents.captures import REQUEST_CAPTURE, captures_panel
from apps.console.pages.agents.explanation import explanation_panels
from apps.console.pages.agents.failures import agent_failures_panel
from apps.console.pages.agents.headline import agent_headline, agent_pills
from apps.console.pages.agents.history import RANGES, history_panel
from apps.console.pages.agents.records import AgentRecords, Deployments, read_deployments, read_records, time_of
from apps.console.pages.series import DAY, WEEK, agent_panel
from apps.fleet.models import AgentKey


def agent_page(agent: Any, query: Mapping[str, str]) -> dict[str, Any]:
    """Return the context of ``console/agent.html``.

    ``agent`` must have been read ``with_state()``. ``query`` may have ``range``, one of ``history.RANGES``.
    """
    now = timezone.now()
    chosen = query.get("range", "")
    if chosen not in RANGES:
        chosen = "day"
    span = DAY if chosen == "day" else WEEK  # a chart of 30 days would be too large to reload every few seconds
    records = read_records(agent, now - span)
    deployments = _read_deployments(agent, records)
    offered = [deployments.by_id[pk] for pk in records.offered if pk in deployments.by_id]
    return {
        "pills": agent_pills(agent),
        "headline": agent_headline(agent, deployments),
        "primary": REQUEST_CAPTURE.label if agent.heartbeat.running_bundle_hash is not None else "",
        "banners": _banners(agent),
        "why": explanation_panels(agent),
        "history": history_panel(agent, records.intervals, deployments, chosen, now),
        "panels": [
            agent_panel(agent, span, offered),
            agent_failures_panel(records.failures, deployments),
            captures_panel(agent, records),
        ],
        "labels": sorted(agent.labels.items()),
        "facts": _facts(agent, records),
        "states": _states_panel(agent, deployments),
    }


def _read_deployments(agent: Any, records: AgentRecords) -> Deployments:
    """Return the deployments that the page names, for example in its headline, history and charts."""
    assignment, heartbeat = agent.assignment, agent.heartbeat
    hashes = [
        assignment.bundle_hash, assignment.attempted_bundle_hash, assignment.failed_bundle_hash,
        heartbeat.running_bundle_hash, *(each.bundle_hash for each in records.intervals),
    ]  # fmt: skip
    ids = [
        assignment.deployment_id, assignment.bundle_deployment_id, assignment.attempted_deployment_id,
        assignment.failed_deployment_id, heartbeat.running_deployment_id, *records.offered,
        *(each.deployment_id for each in records.intervals),
        *(UUID(each["deployment_id"]) for each in records.failures),
    ]  # fmt: skip
    return read_deployments(agent, hashes, ids)


def _banners(agent: Any) -> list[tuple[str, str, list[str]]]:
    """Return the tone, title and sentences of each banner. A decommissioned agent has none."""
    banners = list[tuple[str, str, list[str]]]()
    if agent.decommissioned_at is not None:
        return banners
    cloned_at = agent.heartbeat.clone_suspected_at
    if cloned_at is not None:
        then = "Rotate the key through the API with a user token and the mode `now`, or enroll the agent again."
        banners.append(("bad", "Clone suspected", [relative_time(cloned_at), then]))
    if agent.drained_at is not None:
        then = "The agent gets no new offers except rollbacks, and no rollout waits for it."
        banners.append(("warn", "Drained", [relative_time(agent.drained_at), agent.drain_reason, then]))
    return banners


def _facts(agent: Any, records: AgentRecords) -> list[tuple[str, Any]]:
    heartbeat, key = agent.heartbeat, records.key
    facts = [
        ("Environment", environment_link(agent.environment)),
        ("Host name", agent.hostname or "-"),
        ("Agent version", heartbeat.agent_version or "-"),
        ("Runtime version", records.runtime_version or "-"),
        ("Last process start", relative_time(records.process_started_at)),
        ("Enrolled", relative_time(agent.created_at)),
        ("Key", _key(key) if key else "-"),
    ]
    if heartbeat.commands:
        facts.append(("Pending commands", ", ".join(heartbeat.commands).replace("_", " ")))
    return facts


def _key(key: Mapping[str, Any]) -> str:
    link = text_link(page_url(AgentKey, "change", key["id"]), f"{key['prefix']}…")
    expires = time_of(key["expires_at"])
    if expires is None:
        return link
    verb = "expires" if expires > timezone.now() else "expired"
    return with_note(link, format_html("{} {}", verb, relative_time(expires)))


def _states_panel(agent: Any, deployments: Deployments) -> dict[str, Any]:
    """Return the panel with the desired, attempted, running and failed bundles."""
    assignment, heartbeat = agent.assignment, agent.heartbeat
    states = [
        ("Desired", assignment.bundle_hash, assignment.deployment_id, assignment.since, assignment.action or ""),
        (
            "Attempted",
            assignment.attempted_bundle_hash,
            assignment.attempted_deployment_id,
            assignment.attempted_since,
            "",
        ),
        ("Running", heartbeat.running_bundle_hash, heartbeat.running_deployment_id, heartbeat.running_since, ""),
        (
            "Last failed",
            assignment.failed_bundle_hash,
            assignment.failed_deployment_id,
            assignment.failed_since,
            assignment.failed_detail,
        ),
    ]
    return {
        "title": "Desired and running bundles",
        "columns": ("", "Version", "Bundle", "Deployment", "Since", "Detail"),
        "rows": [
            (
                name,
                deployments.name(bundle, deployment) if deployments.find(bundle, deployment) else "-",
                short_id(bundle),
                row_link(deployments.by_id.get(deployment), "Deployment"),
                relative_time(since),
                detail or "-",
            )
            for name, bundle, deployment, since, detail in states
        ],
    }
