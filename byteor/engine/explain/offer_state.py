"""Explanations of the agent's current offer, or of the lack of an offer."""

from __future__ import annotations

from byteor.engine.explain.facts import (
    DeploymentFacts,
    EnlistmentFacts,
    Facts,
    FailureFacts,
    OfferFacts,
    RunningFacts,
)
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import Finding, NextEvent, Statements
from byteor.engine.explain.findings import NextCode as N
from byteor.engine.explain.pending import explain_circumstances, known_bad, times_out_at
from byteor.engine.explain.targets import explain_target, find_mismatch
from byteor.engine.explain.wording import at, because, running_label
from byteor.engine.machines import IN_FLIGHT, UNDER_WAY, AgentProgress, DeploymentStatus, OfferAction

_OPEN = {DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT}
ARRIVED = {AgentProgress.ACTIVE, AgentProgress.ROLLED_BACK}
_DID = {
    DeploymentStatus.FAILED: "stopped, and agents that it had not reached keep what they run",
    DeploymentStatus.ROLLING_BACK: "failed; the agents that it reached are being rolled back",
    DeploymentStatus.ROLLED_BACK: "failed; the agents that it reached were rolled back",
}


def is_running_offer(running: RunningFacts | None, offer: OfferFacts) -> bool:
    """Return whether the agent runs the offered bundle."""
    return running is not None and running.bundle_hash == offer.bundle_hash


def explain_offer(facts: Facts, offer: OfferFacts) -> Statements:
    """Explain the agent's offer and its deployment, and why the agent is not offered other deployments."""
    owner = facts.find(offer.deployment)
    label = facts.label(offer.source, offer.bundle_hash)
    progress = list(_offer_progress(facts, offer, owner, label))
    rollback = list(_rollback(facts, owner, offer, label)) if owner and offer.action is OfferAction.ROLLBACK else []
    # A rollback is the main reason, unless the agent failed to roll back or drifted.
    is_incomplete = {B.ROLLBACK_FAILED, B.DRIFTED} & {each.code for each in progress}
    yield from (*progress, *rollback) if is_incomplete else (*rollback, *progress)
    if owner is not None:
        yield from _outcome(owner, offer)
        yield from explain_target(facts, owner, offer)
        yield from explain_circumstances(owner)
        yield from _missed_deployments(facts, offer)


def _offer_progress(facts: Facts, offer: OfferFacts, owner: DeploymentFacts | None, label: str) -> Statements:
    enlistment = owner.enlistment if owner else None
    if offer.progress is AgentProgress.FAILED:
        yield from _failed(facts, offer, owner, label)
    elif offer.progress in ARRIVED:
        yield from _arrived(facts, offer, enlistment, label)
    else:
        yield _unfinished(facts, offer, label)
        is_awaited = owner is not None and owner.status in UNDER_WAY and facts.agent.drained_at is None
        until = times_out_at(enlistment.agent, owner.timeout_s) if is_awaited and owner and enlistment else None
        if until is not None:
            yield NextEvent(N.TIMES_OUT, f"If it has not finished with {label} by then, it counts as failed.", until)
        else:
            text = f"It reports when it has finished with {label}."
            if not is_awaited or owner is None or owner.timeout_s is not None:
                text += " No deployment waits for that report."
            yield NextEvent(N.REPORT, text)


def _unfinished(facts: Facts, offer: OfferFacts, label: str) -> Finding:
    agent, since = facts.agent, at(offer.since)
    silent = ""
    if agent.liveness != "online":
        since_when = at(agent.last_seen_at or agent.enrolled_at)
        silent = f". The agent is {agent.liveness} and has sent no heartbeat since {since_when}"
    match offer.progress:
        case AgentProgress.DOWNLOADING | AgentProgress.ACTIVATING:
            code = B(offer.progress)
            text = f"It is {offer.progress} {label}, which it was offered at {since}"
        case _:
            code = B.NOT_FETCHED
            text = f"It was offered {label} at {since} and has not started to download it"
            if is_running_offer(agent.running, offer):
                text = f"It already runs {label}, but has not responded to the offer from {since}"
    return Finding(code, f"{text}{silent}.", offer.deployment)


def _arrived(facts: Facts, offer: OfferFacts, enlistment: EnlistmentFacts | None, label: str) -> Statements:
    agent = facts.agent
    reported_at = enlistment.updated_at if enlistment else None
    if is_running_offer(agent.running, offer):
        yield Finding(
            B.RUNS_DESIRED, f"It has run {label}, as it should, since {at(agent.running_since)}.", offer.deployment
        )
    elif reported_at is not None and (agent.last_seen_at is None or agent.last_seen_at < reported_at):
        yield Finding(
            B.AWAITING_HEARTBEAT,
            f"It reported at {at(reported_at)} that it runs {label}; its next heartbeat must confirm that.",
            offer.deployment,
        )
    else:
        yield Finding(
            B.DRIFTED,
            f"It should run {label}, but has run {running_label(facts)} since {at(agent.running_since)}.",
            offer.deployment,
        )
        yield NextEvent(
            N.TOLD_AGAIN, f"The response to each heartbeat tells it to run {label}. The agent must act on that."
        )


def _failed(facts: Facts, offer: OfferFacts, owner: DeploymentFacts | None, label: str) -> Statements:
    agent, failure = facts.agent, facts.agent.failure
    if failure is None or failure.deployment != offer.deployment:
        failure = None
    error = owner.enlistment.detail if owner and owner.enlistment else ""
    if offer.action is OfferAction.ROLLBACK:
        yield _failure(B.ROLLBACK_FAILED, f"It failed to return to {label}", failure, offer, error)
    else:
        yield _failure(B.FAILED, f"It failed to activate {label}", failure, offer, error)
    since = at(agent.running_since)
    if agent.running is None:
        yield Finding(B.DRIFTED, f"It has run nothing since {since}.", offer.deployment)
    elif is_running_offer(agent.running, offer):
        yield Finding(B.RUNS_DESIRED, f"Nevertheless, it has run {label} since {since}.", offer.deployment)
    else:
        kept = agent.running_since and offer.since and agent.running_since < offer.since
        verb = "still runs" if kept else "automatically returned to"
        yield Finding(
            B.LOCAL_ROLLBACK,
            f"It {verb} {running_label(facts)}, which it has run since {since}.",
            agent.running.deployment,
        )
    is_current = owner is not None and owner.status is DeploymentStatus.ACTIVE and owner.is_current
    if owner is not None and (is_current or owner.status in {DeploymentStatus.DEPLOYING, DeploymentStatus.FAILED}):
        verb = "rolls back" if offer.action is OfferAction.ROLLBACK else "retries"
        first = (
            " after clearing the known bad state of its config bundle"
            if owner.known_bad and offer.action is OfferAction.ACTIVATE
            else ""
        )
        yield NextEvent(N.RETRY, f"It tries again only when somebody {verb} the deployment of {owner.label}{first}.")


def _outcome(owner: DeploymentFacts, offer: OfferFacts) -> Statements:
    """Explain the failure of the deployment that made the offer, or how many agent failures it tolerates."""
    percent, enlistment = owner.strategy.failure_threshold_percent, owner.enlistment
    wave = owner.waves.get(enlistment.agent.wave) if enlistment else None
    limit = f"at most {percent} % may fail" if percent else "no agent may fail"
    if owner.status in _DID and owner.reason in {"threshold", "timeout"}:
        yield Finding(
            B.THRESHOLD,
            f"{owner.detail.rstrip('.')}. {limit[0].upper()}{limit[1:]}, so the deployment {_DID[owner.status]}.",
            owner.id,
        )
    elif owner.status is DeploymentStatus.FAILED:
        by = owner.actions.get("abort") if owner.reason == "aborted" else None
        who = f" by {by.actor} at {at(by.at)}" if by else ""
        yield Finding(
            B.DEPLOYMENT_FAILED,
            f"The deployment of {owner.label} failed: {owner.reason.replace('_', ' ')}{who}{because(owner.detail)}.",
            owner.id,
        )
    elif owner.status is DeploymentStatus.DEPLOYING and offer.progress is AgentProgress.FAILED and enlistment and wave:
        agents = f"{wave.total} agent{'' if wave.total == 1 else 's'}"
        yield Finding(
            B.THRESHOLD,
            f"{wave.failed} of {agents} of wave {enlistment.agent.wave + 1} failed."
            f" {limit[0].upper()}{limit[1:]}; otherwise the deployment fails.",
            owner.id,
        )


def _rollback(facts: Facts, owner: DeploymentFacts, offer: OfferFacts, label: str) -> Statements:
    by, failure = owner.actions.get("roll_back"), facts.agent.failure
    who = f" by {by.actor} at {at(by.at)}" if by else ""
    why = because(owner.rollback_reason)
    if offer.progress is AgentProgress.ROLLED_BACK:
        yield Finding(
            B.ROLLED_BACK,
            f"It returned to {label}, because a rollback of {owner.label} was started{who}{why}.",
            owner.id,
        )
    else:
        text = f"It must return to {label}, because a rollback of {owner.label} was started{who}{why}."
        if is_running_offer(facts.agent.running, offer):
            task = f"the rollback of {owner.label}, which was started{who}"
            text = f"It runs {label} again, but has not confirmed {task}{why}."
        yield Finding(B.ROLLING_BACK, text, owner.id)
    if failure is not None and failure.deployment == owner.id and offer.progress is not AgentProgress.FAILED:
        yield _failure(B.FAILED, f"It had failed in the deployment of {owner.label}", failure, offer)


def _failure(code: B, what: str, failure: FailureFacts | None, offer: OfferFacts, error: str = "") -> Finding:
    when = f" at {at(failure.since)}" if failure else ""
    why = (failure.detail if failure else error).rstrip(".") or "it gave no reason"
    return Finding(code, f"{what}{when}: {why}.", offer.deployment)


def explain_missing_offer(facts: Facts) -> Statements:
    """Explain why the agent has no offer, why deployments skip it, and whether a current deployment will reach it."""
    relevant = [each for each in facts.deployments if each.is_current or each.status in _OPEN]
    misses = {each.id: miss for each in relevant if (miss := find_mismatch(facts, each))}
    fitting = [each for each in relevant if each.id not in misses]
    why = "Nothing is offered to it."
    if not relevant:
        why = "Its environment has no current or upcoming deployment."
    elif not fitting:
        why = "No current or upcoming deployment in its environment targets it."
    elif all(each.known_bad for each in fitting):
        why = "All current and upcoming deployments that target it have config bundles that are known bad."
    yield Finding(B.NEVER_OFFERED, why)
    yield from misses.values()
    for deployment in fitting:
        if deployment.is_current and deployment.enlistment is None:
            yield from _joins(deployment)


def _missed_deployments(facts: Facts, offer: OfferFacts) -> Statements:
    """Explain why the agent is not offered deployments of other pipelines, or the current one of its own pipeline."""
    source = facts.find(offer.source)
    others = (each for each in facts.deployments if each.status in _OPEN or each.is_current)
    for each in others:
        offered_it = each.enlistment is not None and each.enlistment.agent.progress is not AgentProgress.PENDING
        if source is None or each == source or offered_it:
            continue
        miss = find_mismatch(facts, each)
        if miss is not None and miss.code is B.ANOTHER_PIPELINE:
            yield miss
        elif each.is_current and each.pipeline == source.pipeline and each.enlistment is None:
            if miss is None:
                yield from _joins(each)
            else:
                yield Finding(B.SUPERSEDED, f"Another deployment of {each.pipeline} is current: {each.label}.", each.id)
                yield miss


def _joins(current: DeploymentFacts) -> Statements:
    """Explain when a late joiner is offered the current deployment, or why it is not."""
    if current.known_bad is not None:
        yield known_bad(current, current.known_bad)
    else:
        yield Finding(B.OFFER_DUE, f"{current.label} is current, and the agent matches its target.", current.id)
        yield NextEvent(
            N.OFFER,
            f"The control plane offers {current.label} to the agent. The offer waits while another deployment is"
            " changing the agent, and while offers are held in the environment.",
        )
