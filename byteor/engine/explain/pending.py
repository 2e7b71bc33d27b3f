"""Explanations of deployments that have not reached the agent, and findings that other explanations share."""

from __future__ import annotations

from datetime import datetime, timedelta

from byteor.engine.blockers import BlockerCode
from byteor.engine.explain.facts import DeploymentFacts, EnlistmentFacts, Facts, WaveFacts
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import Finding, NextEvent, Statements
from byteor.engine.explain.findings import NextCode as N
from byteor.engine.explain.targets import find_mismatch, wave_progress_suffix
from byteor.engine.explain.wording import at, because
from byteor.engine.machines import FINISHED, AgentProgress, ApprovalStatus, DeploymentStatus
from byteor.engine.rollout import RolloutAgent, Strategy

_WAITS = {BlockerCode.FREEZE_WINDOW: B.WAITS_FOR_FREEZE, BlockerCode.START_AT: B.WAITS_FOR_START_TIME}
_ENDED = {DeploymentStatus.FAILED, DeploymentStatus.ROLLING_BACK, DeploymentStatus.ROLLED_BACK}


def times_out_at(agent: RolloutAgent, timeout_s: int | None) -> datetime | None:
    """Return when the agent times out.

    Returns None if it has no offer, has finished or is not counted, and while timeouts are suspended.
    """
    if agent.offered_at is None or agent.progress in FINISHED or not agent.counted or timeout_s is None:
        return None
    return agent.offered_at + timedelta(seconds=timeout_s)


def pause_ends_at(strategy: Strategy, wave_done_at: datetime | None) -> datetime | None:
    """Return when the pause after the current wave ends, or None while that wave is under way."""
    return None if wave_done_at is None else wave_done_at + timedelta(seconds=strategy.pause_s)


def explain_pending(facts: Facts, deployment: DeploymentFacts) -> Statements:
    """Explain what a deployment waits for before it reaches the agent, or why it stopped before it could.

    Yields nothing for any other deployment, such as one that skips the agent or was already offered to it.
    """
    enlistment = deployment.enlistment
    if enlistment is not None and enlistment.agent.progress is not AgentProgress.PENDING:
        return
    if find_mismatch(facts, deployment) is not None:
        return
    if deployment.status is DeploymentStatus.PENDING_APPROVAL:
        yield from _waits_for_approval(deployment)
    elif deployment.status is DeploymentStatus.APPROVED:
        yield from _waits_to_begin(facts, deployment)
    elif deployment.status is DeploymentStatus.BUILDING:
        yield Finding(B.BUILDING, f"The bundle of {deployment.label} is being built.", deployment.id)
        yield NextEvent(N.OFFER, f"When its bundle is built, {deployment.label} is offered to the first wave.")
    elif deployment.status is DeploymentStatus.DEPLOYING:
        yield from _waits_for_offer(deployment, enlistment)
    elif enlistment is not None and deployment.status in _ENDED:
        offer = facts.agent.offer
        if offer is None or deployment.id > offer.deployment:
            yield from _ended_before(deployment)
        return
    else:
        return
    yield from explain_circumstances(deployment)


def _waits_for_approval(deployment: DeploymentFacts) -> Statements:
    approval = deployment.approval
    if approval is None:
        return
    so_far = f"{approval.given} of {approval.required} people have approved it"
    if approval.required == 1:
        so_far = "1 person has approved it" if approval.given else "nobody has approved it yet"
    yield Finding(
        B.WAITS_FOR_APPROVAL,
        f"The deployment of {deployment.label} waits for approval: {so_far}."
        f"{f' {approval.deciders} can decide.' if approval.deciders else ''}",
        deployment.id,
        approval.id,
    )
    yield from _waits_for_gate(deployment)
    is_paused = any(blocker.code is BlockerCode.GATE_RUNNING for blocker in deployment.blockers)
    text = f"Without enough approvals by then, the deployment of {deployment.label} fails."
    if is_paused:
        text = f"The time to approve the deployment of {deployment.label} is paused until its regression has finished."
    yield NextEvent(N.APPROVAL_EXPIRES, text, None if is_paused else approval.expires_at)


def _waits_to_begin(facts: Facts, deployment: DeploymentFacts) -> Statements:
    label, approval = deployment.label, deployment.approval
    yield from _waits_for_gate(deployment)
    for blocker in deployment.blockers:
        if blocker.code.is_of_gate:
            continue
        yield Finding(
            _WAITS.get(blocker.code, B.WAITS_FOR_TURN),
            f"The deployment of {label} waits because {blocker.detail[0].lower()}{blocker.detail[1:]}",
            deployment.id,
        )
    start_at = next((each.until for each in deployment.blockers if each.code is BlockerCode.START_AT), None)
    if start_at is not None:
        yield NextEvent(N.START_TIME, f"The start time of the deployment of {label} is reached.", start_at)
    if any(each.ids or (each.code is BlockerCode.GATE_RUNNING and not each.until) for each in deployment.blockers):
        yield NextEvent(N.TURN, f"The deployment of {label} starts when no blockers remain.")
    elif not deployment.blockers and deployment.known_bad is None and _has_consent(deployment, facts.now):
        when = "due to start, but is held up" if deployment.held_up else "about to start"
        yield Finding(B.OFFER_DUE, f"The deployment of {label} is {when}.", deployment.id)
        yield NextEvent(N.OFFER, f"The bundle of {label} is built and then offered to the first wave.")
    if approval is None or deployment.break_glass is not None or approval.is_used:
        return
    if approval.status is ApprovalStatus.APPROVED:
        yield NextEvent(
            N.APPROVAL_EXPIRES, f"If the deployment of {label} has not started by then, it fails.", approval.expires_at
        )


def _waits_for_gate(deployment: DeploymentFacts) -> Statements:
    """Explain why the replay gate blocks the deployment, and when the deployment fails if the gate still blocks it."""
    gate = [blocker for blocker in deployment.blockers if blocker.code.is_of_gate]
    for blocker in gate:
        yield Finding(
            B.WAITS_FOR_GATE,
            f"The deployment of {deployment.label} waits for the replay gate. {blocker.detail}",
            deployment.id,
        )
    until = next((blocker.until for blocker in gate if blocker.until is not None), None)
    if until is not None:
        text = f"The deployment of {deployment.label} fails if the replay gate still blocks it then."
        yield NextEvent(N.GATE_DEADLINE, text, until)


def _has_consent(deployment: DeploymentFacts, now: datetime) -> bool:
    """Return whether the deployment has a valid approval at ``now``, or can be built without one."""
    approval = deployment.approval
    if approval is None or deployment.break_glass is not None:
        return True
    return approval.status is ApprovalStatus.APPROVED and (approval.is_used or now < approval.expires_at)


def _waits_for_offer(deployment: DeploymentFacts, enlistment: EnlistmentFacts | None) -> Statements:
    label, waves = deployment.label, len(deployment.strategy.percents)
    if enlistment is None and deployment.is_enlisting:
        yield Finding(
            B.WAITS_FOR_WAVE, f"It matches the target of {label}, which is still adding agents.", deployment.id
        )
        yield NextEvent(
            N.OFFER,
            f"If it is added, it is offered {label} in its wave. Otherwise, it is offered {label} when that deployment"
            " is active.",
        )
        return
    if enlistment is None:
        yield Finding(
            B.LATE_JOINER,
            f"It matches the target of {label}, but did not match it when the deployment started.",
            deployment.id,
        )
        yield NextEvent(N.OFFER, f"It is offered {label} when that deployment is active.")
        return
    if enlistment.agent.wave <= deployment.wave:
        yield Finding(B.OFFER_DUE, f"{label} is due to be offered to it now.", deployment.id)
        if deployment.paused_at is None:
            yield NextEvent(N.OFFER, f"The control plane offers {label} to it.")
        return
    yield Finding(
        B.WAITS_FOR_WAVE,
        f"{label} reaches it in wave {enlistment.agent.wave + 1} of {waves}{wave_progress_suffix(deployment)}.",
        deployment.id,
    )
    if deployment.wave_hold is not None:
        yield Finding(
            B.WAITS_FOR_HOLD,
            deployment.wave_hold.sentence,
            deployment.id,
            deployment.wave_hold.hold.approval_id,
        )
    if deployment.paused_at is not None:
        return
    if deployment.wave_hold is not None:
        wave = deployment.wave_hold.hold.wave + 1
        yield NextEvent(N.HOLD_ENDS, f"When the hold ends, wave {wave} of {label} can start.")
        return
    ends = pause_ends_at(deployment.strategy, deployment.wave_done_at)
    if ends is not None:
        yield NextEvent(N.WAVE_BEGINS, f"The pause ends, and the next wave of {label} starts.", ends)
    else:
        last, timeout_s = deployment.waves.get(deployment.wave, WaveFacts()).last_timed_from, deployment.timeout_s
        wave_ends_at = None if last is None or timeout_s is None else last + timedelta(seconds=timeout_s)
        text = f"Wave {deployment.wave + 1} of {label} ends"
        if wave_ends_at is None:
            text += " when its agents have finished."
        else:
            text += ". Agents that have not finished by then count as failed."
        yield NextEvent(N.WAVE_ENDS, text, wave_ends_at)


def _ended_before(deployment: DeploymentFacts) -> Statements:
    by = deployment.actions.get("abort") if deployment.reason == "aborted" else None
    how = deployment.reason.replace("_", " ") or deployment.status.replace("_", " ")
    who = f" by {by.actor} at {at(by.at)}" if by else ""
    yield Finding(
        B.ENDED_BEFORE,
        f"The deployment of {deployment.label} stopped before it reached the agent"
        f" ({how}{who}{because(deployment.detail)}).",
        deployment.id,
    )
    if deployment.known_bad is not None:
        yield known_bad(deployment, deployment.known_bad)


def explain_circumstances(deployment: DeploymentFacts) -> Statements:
    """Explain whether the deployment is held up, paused or known bad, or was retried or requested as break-glass."""
    if deployment.held_up:
        yield Finding(
            B.HELD_UP, f"The deployment of {deployment.label} cannot continue. {deployment.held_up}", deployment.id
        )
    label, actions = deployment.label, deployment.actions
    if deployment.paused_at is not None and deployment.status is DeploymentStatus.DEPLOYING:
        by = actions.get("pause")
        who = f" by {by.actor}{because(by.reason)}" if by else ""
        yield Finding(
            B.PAUSED,
            f"The deployment of {label} has been paused since {at(deployment.paused_at)}{who}.",
            deployment.id,
        )
        yield NextEvent(N.RESUME, f"The deployment of {label} continues when somebody resumes it.")
    retry, enlistment = actions.get("retry"), deployment.enlistment
    offered_at = enlistment and enlistment.agent.offered_at
    joined_late = offered_at and deployment.activated_at and offered_at >= deployment.activated_at
    # A retry of an active deployment makes offers only to agents that failed. Any other agent that is offered the
    # deployment after it became active is a late joiner.
    was_retried = enlistment and (enlistment.failed_before or not joined_late)
    if retry and offered_at and offered_at >= retry.at and was_retried:
        yield Finding(
            B.RETRIED,
            f"{retry.actor} retried the deployment of {label} at {at(retry.at)}{because(retry.reason)}.",
            deployment.id,
        )
    glass, approval = deployment.break_glass, deployment.approval
    if glass is not None:
        ratified = approval is not None and approval.status is ApprovalStatus.APPROVED
        after = "It has been approved afterwards" if ratified else "It has not been approved"
        yield Finding(
            B.BREAK_GLASS,
            f"{glass.by} requested the break-glass deployment of {label}{because(glass.reason)}. {after}.",
            deployment.id,
            approval.id if approval else None,
        )
        is_pending = approval is not None and approval.status is ApprovalStatus.PENDING
        is_superseded = deployment.status is DeploymentStatus.ACTIVE and not deployment.is_current
        if is_pending and not is_superseded and deployment.status not in {*_ENDED, DeploymentStatus.DENIED}:
            yield NextEvent(
                N.RATIFICATION_DUE,
                f"If the deployment of {label} has not been approved by then, it is rolled back, if possible.",
                glass.approve_by,
            )
    if deployment.known_bad is not None:
        yield known_bad(deployment, deployment.known_bad)


def known_bad(deployment: DeploymentFacts, reason: str) -> Finding:
    """Return the finding that the deployment's config bundle is known bad in this environment."""
    return Finding(
        B.KNOWN_BAD,
        f"The config bundle of {deployment.label} is known bad in this environment{because(reason)}."
        " It is not offered until somebody clears that state.",
        deployment.id,
        config_hash=deployment.config_hash,
    )
