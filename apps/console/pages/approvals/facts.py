"""The facts on the page of an approval: the subject, and details of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe

from apps.artifacts.models import Artifact, Replay
from apps.console.frame import relative_time, row_link, short_id, state_pill, time_left, with_note
from apps.console.frame.columns import environment_link, page_url, text_link
from apps.console.pages.artifacts.page import artifact_title
from apps.console.pages.deployments.phrases import agent_count, describe_options, describe_strategy, describe_target
from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import Approval, ConfigBundle, Deployment
from apps.releases.services.approvals import is_overdue
from byteor.engine.machines import ApprovalStatus
from byteor.engine.target import ReplayTarget, Target
from byteor_cloud.database.large_columns import without_large

_NAMED_BY: Mapping[type[Model], Sequence[str]] = {Artifact: ("agent",)}  # the related rows that a row's name needs
_NAMED = 8  # agents that are listed by name


def deployment_of(row: Approval) -> Deployment | None:
    """Return the deployment whose approval this is; None for a replay, a wave or a deleted deployment."""
    return getattr(row, "deployment", None)


def subject(row: Approval) -> str:
    """Return a phrase for the subject of the approval."""
    deployment = deployment_of(row)
    if row.rollout is not None and row.wave is not None:
        return f"Wave {row.wave + 1} of {row.rollout.pipeline}/{row.rollout.config_bundle.name}"
    if deployment is not None:
        return f"{deployment.config_bundle.version} to {row.environment}"
    return f"Execute replay in {row.environment}" if row.replay_id else "a deleted deployment"


class TimeLeft(NamedTuple):
    """The time left to decide on a pending approval. If the deadline has passed but is paused, the text says so."""

    text: str
    is_paused: bool


def time_to_decide(row: Approval) -> TimeLeft | None:
    """Return the time left to decide, or None if the approval is closed or overdue."""
    if row.status != ApprovalStatus.PENDING or is_overdue(row):
        return None
    if row.expires_at > timezone.now():
        return TimeLeft(time_left(row.expires_at), is_paused=False)
    what = "regression has finished" if row.rollout is None else "deployment is resumed"
    return TimeLeft(f"paused until the {what}", is_paused=True)


def describe_request(row: Approval, left: TimeLeft | None) -> str:
    """Return sentences about the request, and the time ``left`` to decide while the approval is open.

    The service requests the approval of a wave, so its sentences name the requester of the deployment.
    """
    deployment = row.rollout or deployment_of(row)
    agents = "" if deployment is None else f" for {agent_count(deployment.target_count)}"
    who, when = row.requested_by, relative_time(row.created_at)
    if row.wave is None:
        text = format_html("{} requested this {}{}.", who, when, agents)
    else:
        text = format_html("Requested automatically {}. {} requested the deployment{}.", when, who, agents)
    if left is None:
        return text
    return format_html("{} The time to decide is {}." if left.is_paused else "{} {} to decide.", text, left.text)


def _requester(row: Approval) -> tuple[str, str]:
    """Return a label and the requester. For a wave, this is the requester of the deployment, without a time."""
    if row.wave is not None:
        return "Deployment requested by", row.requested_by
    return "Requested by", with_note(row.requested_by, relative_time(row.created_at))


def note_of(row: Approval) -> str:
    """Return the note of the deployment that the approval or its wave belongs to; "" without a note."""
    deployment = row.rollout or deployment_of(row)
    return "" if deployment is None else deployment.note


def approval_facts(row: Approval, agents: Sequence[str], left: TimeLeft | None) -> list[tuple[str, Any]]:
    """Return the approval's subject and details of the request, as labels and values.

    ``agents`` are the names of ``matched_agents``.
    """
    deployment, bound = row.rollout or deployment_of(row), row.target and row.target.bound
    facts: list[tuple[str, Any]] = [] if row.wave is None else [("Wave", row.wave + 1)]
    if deployment is not None:
        facts += [
            ("Deployment", row_link(deployment, f"{deployment.pipeline} to {row.environment}")),
            ("Version", row_link(deployment.config_bundle.version)),
            ("Config bundle", row_link(deployment.config_bundle)),
        ]
    facts += [
        ("Environment", environment_link(row.environment)),
        ("Posture", state_pill(row.environment.posture)),
        _requester(row),
        ("Policy", _policy(row)),
        (
            "Expires" if row.status == ApprovalStatus.PENDING else "Expiry",
            time_left(row.expires_at) if left is None else left.text,
        ),
        *([("Capabilities", _capabilities(row))] if row.replay_id is None else []),
        ("Spec hash", short_id(row.spec_hash)),
        ("Config hash", short_id(row.config_hash)),
    ]
    if row.replay_id is None:
        target = bound if isinstance(bound, Target) else None
        facts += [
            ("Target", with_note(describe_target(target), _describe_agents(row, agents))),
            ("Strategy", describe_strategy(row.strategy)),
            *(describe_options(row.subject.options) if row.wave is None else []),
        ]
    if row.explain:
        facts.append(("Explanations", _explanations(row)))
    if row.used_at is not None:
        facts.append(("Used", relative_time(row.used_at)))
    return facts


def replay_panel(row: Approval) -> dict[str, Any]:
    """Return the panel of what a requested execute replay would do."""
    bound = row.target and row.target.bound
    rows = [("Replay", _page_link(Replay, row.replay_id))]
    rows += _replay_facts(bound) if isinstance(bound, ReplayTarget) else []
    rows.append(("Capabilities", _capabilities(row)))
    return {"id": "replay", "title": "What the replay would do", "rows": rows}


def _capabilities(row: Approval) -> str:
    return ", ".join(row.capabilities) or "-"


def _page_link(model: type[Model], pk: Any) -> str:
    """Return a link with the row's name, or with its short id if the row was deleted; "-" without a key."""
    if pk is None:
        return "-"
    row = without_large(model._default_manager.select_related(*_NAMED_BY.get(model, (None,)))).filter(pk=pk).first()
    name = short_id(pk) if row is None else artifact_title(row) if isinstance(row, Artifact) else str(row)
    return text_link(page_url(model, "change", pk), name)


def _replay_facts(target: ReplayTarget) -> list[tuple[str, Any]]:
    """Return the facts of the requested execute replay."""
    pages: dict[str, type[Model]] = {
        "artifact_id": Artifact,
        "version_id": Version,
        "config_bundle_id": ConfigBundle,
        "fallback_config_bundle_id": ConfigBundle,
    }
    facts: list[tuple[str, Any]] = []
    for name, value in target.stored().items():
        label = name.removesuffix("_id").replace("_", " ").capitalize()
        if name in pages:
            facts.append((label, _page_link(pages[name], value)))
        elif isinstance(value, list):
            facts.append((label, ", ".join(map(str, value)) or "none"))
        else:
            facts.append((label, short_id(value) if name.endswith("hash") else "-" if value is None else value))
    return facts


def matched_agents(row: Approval) -> QuerySet[Agent, str]:
    """Return the names of the first 8 agents that the target matched when the deployment was requested.

    Agents that were deleted since are left out. The approval of a wave lists no agents.
    """
    target = row.target
    if target is None or target.count is None or row.wave is not None:
        return Agent.objects.none().values_list("name", flat=True)
    first = Agent.objects.filter(pk__in=target.resolved[:_NAMED], environment=row.environment)
    return first.order_by("pk").values_list("name", flat=True)


def _describe_agents(row: Approval, names: Sequence[str]) -> str:
    """Return how many agents the target matched at the request, and the names of the first ones; "" if unknown."""
    target = row.target
    if target is None or target.count is None:
        return ""
    if row.wave is not None or not target.count:  # the approval of a wave lists no agents
        return f"{agent_count(target.count)} when requested"
    others = target.count - len(names)
    more = f" and {others:,} more" if names and others > 0 else ""
    gone = "all deleted since" if target.count <= _NAMED else f"the first {_NAMED} were deleted since"
    return f"{agent_count(target.count)} when requested: {', '.join(names) or gone}{more}"


def _explanations(row: Approval) -> str:
    """Return the requester's explanations of differences, each after the id of its group."""
    each = ((short_id(one["group"]), one["text"]) for one in row.explain)
    return format_html_join(mark_safe("<br>"), "{}: {}", each)


def _policy(row: Approval) -> str:
    people = f"{row.required_approvals} " + ("people" if row.required_approvals != 1 else "person")
    return with_note(people, "may include the requester" if row.allow_self_approval else "other than the requester")
