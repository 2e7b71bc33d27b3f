"""The texts about a rollout: a line for each change of its state, the bars of its waves, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from byteor.command.exits import DONE, FAILED, ROLLOUT_FAILED
from byteor.engine.failures import FAILED_HOW, OTHER_CAUSES, STOPPED_WHY
from byteor.engine.rollout import Strategy

if TYPE_CHECKING:
    from byteor.client import models as m

UNFINISHED: Final = ("pending_approval", "approved", "building", "deploying", "rolling_back")
ENDED: Final = frozenset({"active", "failed", "denied", "rolled_back"})
# The reasons of deployments that were not approved, or that the replay gate blocked. Most had not started, but a
# break-glass deployment can start before people decide.
REFUSED: Final = frozenset({"approval_denied", "approval_expired", "approval_revoked", "replay_gate"})
NAMED: Final = 5  # the most agents or people that a line names

STATUSES: Final[Mapping[str, str]] = {
    "pending_approval": "waiting for approval",
    "approved": "waiting to start",
    "rolling_back": "rolling back",
    "rolled_back": "rolled back",
}
_FAILED_HOW: Final[Mapping[str, str]] = {**FAILED_HOW, OTHER_CAUSES: "failed for other reasons"}


_EVENTS: Final[Mapping[str, str]] = {
    "create": "Requested",
    "approve": "Approved",
    "deny": "Denied",
    "differences_accepted": "Differences were accepted",
    "gate_blocked": "The replay gate blocked the deployment",
    "change_reviewers": "The reviewers were changed",
    "build": "Started to build the deploy bundle",
    "offer": "Built the deploy bundle and offered it to the first agents",
    "wave_started": "Wave {wave} started",
    "hold": "Wave {wave} is on hold",
    "next_wave": "Wave {wave} was started manually",
    "wave_approved": "Wave {wave} was approved",
    "wave_denied": "Wave {wave} was denied",
    "wave_expired": "The approval request of wave {wave} expired",
    "wave_revoked": "The approval of wave {wave} was revoked",
    "agents_failed": "Agents failed",
    "pause": "Paused",
    "resume": "Resumed",
    "abort": "Aborted",
    "retry": "Retried",
    "activate": "The deployment became active",
    "fail": "The deployment failed",
    "roll_back": "The rollback started",
    "restore": "The rollback finished",
    "break_glass_approved": "Approved after break-glass",
    "break_glass_denied": "Denied after break-glass",
    "break_glass_expired": "Not approved in time after break-glass",
    "break_glass_revoked": "The request for approval after break-glass was withdrawn",
}


class People(NamedTuple):
    """A pending approval, and the names of its reviewers by user id."""

    approval: m.Approval
    names: Mapping[str, str]


class Wave(NamedTuple):
    """A wave of a rollout, or the rollback: the number of finished agents, the number of all, and the state."""

    title: str
    done: int
    total: int
    state: str


def agents_of(count: int) -> str:
    """Return a number of agents, such as ``1 agent`` or ``2 agents``."""
    return f"{count:,} agent{'' if count == 1 else 's'}"


def status_of(deployment: m.Deployment | m.ListedDeployment) -> str:
    """Return the status in words."""
    if deployment.paused_at is not None and deployment.status == "deploying":
        return "paused"
    return STATUSES.get(deployment.status, deployment.status)


def state_lines(deployment: m.Deployment, people: People | None) -> dict[str, str]:
    """Return texts about the state of a rollout in progress, by keys that change with the state."""
    lines: dict[str, str] = {}
    match deployment.status:
        case "pending_approval":
            lines[f"approval {deployment.approval_id}"] = _waits(
                "Waiting for approval.", deployment.approval_id, people
            )
        case "approved" if not deployment.blockers:
            lines["approved"] = "Waiting for the build to start."
        case "building":
            lines["building"] = "Building the deploy bundle."
        case "deploying":
            lines[f"wave {deployment.wave}"] = _wave_began(deployment)
        case "rolling_back":
            lines["rolling back"] = f"Rolling back: {_sentence(deployment.rollback_reason or 'no reason was given')}"
    if deployment.paused_at is not None:
        lines[f"paused {deployment.paused_at}"] = f"Paused. To continue:\n  byteor resume {deployment.id}"
    if (hold := deployment.wave_hold) is not None:
        waits = f"Wave {hold.wave + 1} waits"
        lines[f"hold {hold.wave} {hold.approval_id}"] = (
            f"{waits} until somebody starts it. To start it:\n  byteor next-wave {deployment.id}"
            if hold.approval_id is None
            else _waits(f"{waits} for approval.", hold.approval_id, people)
        )
    for blocker in deployment.blockers or ():
        if blocker.code != "wave_hold":
            lines[f"blocker {blocker.code}"] = f"Waiting: {_sentence(blocker.detail)}"
    return lines


def failure_lines(deployment: m.Deployment, names: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return a line for each cause of failures. ``names`` are the names of agents by id."""
    return {
        (each.reason, each.detail): f"{agents_of(each.count)} {_FAILED_HOW.get(each.reason, 'failed')}"
        + (f": {each.detail}" if each.detail else "")
        + _named([names.get(agent_id, agent_id) for agent_id in each.agents], each.count)
        for each in deployment.failures or ()
    }


def outcome(deployment: m.Deployment, approval: m.Approval | None = None) -> tuple[int, str]:
    """Return the exit code and a text about a deployment that has ended. ``approval`` contains the denial, if any."""
    progress, pipeline = deployment.progress, deployment.pipeline
    of_all = f"{progress.active:,} of {agents_of(progress.total)} {'is' if progress.active == 1 else 'are'} active"
    match deployment.status:
        case "active":
            failed = f", and {progress.failed:,} failed" if progress.failed else ""
            return DONE, f"Deployed {pipeline}: {of_all}{failed}."
        case "rolled_back":
            return ROLLOUT_FAILED, f"The rollout of {pipeline} was rolled back: {_sentence(deployment.rollback_reason)}"
        case "denied":
            denials = [each for each in (approval.decisions if approval else ()) if each.decision == "deny"]
            why = f" by {denials[0].decided_by}: {denials[0].comment or 'without a comment'}" if denials else ""
            return FAILED, f"The deployment of {pipeline} was denied{_sentence(why)} No agent was changed."
    why = STOPPED_WHY.get(deployment.reason, deployment.reason.replace("_", " "))
    detail = f": {deployment.detail}" if deployment.detail else ""
    if deployment.reason in REFUSED and not progress.total:
        return FAILED, f"The deployment of {pipeline} did not start, because {_sentence(why + detail)}"
    return ROLLOUT_FAILED, f"The rollout of {pipeline} failed, because {_sentence(why + detail)}"


def describe_event(entry: m.TimelineEntry) -> str:
    """Return a description of the event, with its detail or reason if there is one."""
    detail = entry.detail or {}
    # A newer server may send events that are unknown here.
    said = _EVENTS.get(entry.event, entry.event.replace("_", " ").capitalize())
    why = detail.get("detail") or detail.get("reason") or detail.get("report")
    return said.replace("{wave}", str(detail.get("wave", "?"))) + (f": {why}" if isinstance(why, str) else "")


def waves_of(deployment: m.Deployment) -> list[Wave]:
    """Return the waves that have agents, or the rollback. Empty before agents are enlisted.

    The API returns counts for the whole rollout, not for each wave. Therefore, the sizes of the waves are computed in
    the same way as at the start of the rollout, and finished agents are assigned to the first waves.
    """
    progress = deployment.progress
    if deployment.status in {"rolling_back", "rolled_back"}:
        touched = progress.total - progress.pending
        state = "done" if deployment.status == "rolled_back" else "in progress"
        return [Wave("Rollback", progress.rolled_back, touched, state)] if touched else []
    percents = deployment.strategy.percents or [100]
    bounds = Strategy.waves(percents).wave_bounds(progress.total)
    finished = progress.active + progress.failed + progress.rolled_back
    found, before = [], 0
    for number, bound in enumerate(bounds):
        size, offered_before = bound - before, before
        before = bound
        if size:
            is_over = number < deployment.wave or deployment.status == "active"
            done = size if is_over else min(max(finished - offered_before, 0), size)
            title = f"Wave {number + 1}" if len(percents) > 1 else "Agents"
            found.append(Wave(title, done, size, _wave_state(deployment, number)))
    return found


def _wave_state(deployment: m.Deployment, number: int) -> str:
    hold = deployment.wave_hold
    if deployment.status == "active" or number < deployment.wave:
        return "done"
    if deployment.status == "failed":
        return "stopped" if number == deployment.wave else "not started"
    if hold is not None:
        return "done" if number == deployment.wave else "on hold" if number == hold.wave else "waiting"
    if number > deployment.wave:
        return "waiting"
    return "paused" if deployment.paused_at is not None else "in progress"


def counts_of(progress: m.Progress) -> str:
    """Return the number of agents by state, such as ``3 of 4 active, 1 failed``."""
    counts = [(progress.failed, "failed"), (progress.rolled_back, "rolled back")]
    more = "".join(f", {count:,} {word}" for count, word in counts if count)
    return f"{progress.active:,} of {progress.total:,} active{more}"


def _wave_began(deployment: m.Deployment) -> str:
    percents = deployment.strategy.percents or [100]
    if len(percents) == 1:
        return f"Deploying to {agents_of(deployment.target_count)}."
    so_far = f"; {counts_of(deployment.progress)}" if deployment.progress.active or deployment.progress.failed else ""
    percent = percents[min(deployment.wave, len(percents) - 1)]
    return f"Started wave {deployment.wave + 1} of {len(percents)}, up to {percent}% of the agents{so_far}."


def _waits(what: str, approval_id: str | None, people: People | None) -> str:
    lines = [what]
    if people is not None:
        approval = people.approval
        if approval.required_approvals > 1:
            lines[0] += f" {count_consents(approval)} of {approval.required_approvals} people have approved."
        lines[0] += f" {deciders(approval.reviewers, people.names)} can approve"
        lines[0] += "." if approval.allow_self_approval else f", but not the requester, {approval.requested_by}."
        if approval.wave_report is not None:
            lines.append(f"  {approval.wave_report.summary}")
    return "\n".join([*lines, f"  byteor approve {approval_id}"])


def count_consents(approval: m.Approval | m.ListedApproval) -> int:
    """Return the number of people who approved. If the approval has reviewers, only they are counted."""
    return sum(
        each.decision == "approve" and (not approval.reviewers or each.user_id in approval.reviewers)
        for each in approval.decisions
    )


def deciders(reviewers: list[str], names: Mapping[str, str]) -> str:
    """Return who may decide, as the subject of a sentence. ``names`` are names of people by user id."""
    if not reviewers:
        return "Any operator or admin"
    known = [names[each] for each in reviewers if each in names][:NAMED]
    if more := len(reviewers) - len(known):
        known.append(f"{more} {'more ' if known else ''}{'person' if more == 1 else 'people'}")
    return " or ".join([", ".join(known[:-1]), known[-1]]) if len(known) > 1 else known[0]


def _named(names: list[str], count: int) -> str:
    if not names:
        return ""
    shown = names[:NAMED]
    return f" ({', '.join(shown)}{', …' if count > len(shown) else ''})"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
