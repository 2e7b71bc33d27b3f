"""How an agent stands with what it was offered."""

from __future__ import annotations

from byteor_cloud.engine.explain.coming import known_bad, marks, times_out_at
from byteor_cloud.engine.explain.facts import Deployment, Facts, Failure, Offer, Part, Running
from byteor_cloud.engine.explain.findings import Because as B
from byteor_cloud.engine.explain.findings import Event, Finding, Told
from byteor_cloud.engine.explain.findings import Next as N
from byteor_cloud.engine.explain.targets import chosen, mismatch
from byteor_cloud.engine.explain.wording import at, because, what_runs
from byteor_cloud.engine.machines import IN_FLIGHT, UNDER_WAY, AgentProgress, DeploymentStatus, OfferAction

_CONCERNED = {DeploymentStatus.PENDING_APPROVAL, *IN_FLIGHT}
ARRIVED = {AgentProgress.ACTIVE, AgentProgress.ROLLED_BACK}
_DID = {
    DeploymentStatus.FAILED: "stopped there, and agents that it had not reached keep what they run",
    DeploymentStatus.ROLLING_BACK: "is rolling back what it touched",
    DeploymentStatus.ROLLED_BACK: "has rolled back what it touched",
}


def runs(running: Running | None, offer: Offer) -> bool:
    """Whether it runs what it was offered."""
    return running is not None and running.bundle_hash == offer.bundle_hash


def offered(facts: Facts, offer: Offer) -> Told:
    """How far it is with its offer, where the offer comes from, and what bears on it."""
    owner = facts.find(offer.deployment)
    label = facts.label(offer.source, offer.bundle_hash)
    standing = list(_standing(facts, offer, owner, label))
    back = list(_way_back(facts, owner, offer, label)) if owner and offer.action is OfferAction.ROLLBACK else []
    # A rollback is the reason for all that follows, unless the trouble is that it did not come about.
    amiss = {B.ROLLBACK_FAILED, B.DRIFTED} & {told.code for told in standing}
    yield from (*standing, *back) if amiss else (*back, *standing)
    if owner is not None:
        yield from _outcome(owner, offer)
        yield from chosen(facts, owner, offer)
        yield from marks(owner)
        yield from _passed_over(facts, offer)


def _standing(facts: Facts, offer: Offer, owner: Deployment | None, label: str) -> Told:
    part = owner.part if owner else None
    if offer.progress is AgentProgress.FAILED:
        yield from _failed(facts, offer, owner, label)
    elif offer.progress in ARRIVED:
        yield from _arrived(facts, offer, part, label)
    else:
        yield _at_it(facts, offer, label)
        until = times_out_at(part.view, owner.timeout_s) if owner and part and owner.status in UNDER_WAY else None
        if until is not None:
            yield Event(N.TIMES_OUT, f"If it has not finished with {label} by then, it counts as failed.", until)
        else:
            yield Event(N.REPORT, f"It reports when it has finished with {label}; nothing waits for it.")


def _at_it(facts: Facts, offer: Offer, label: str) -> Finding:
    agent, since = facts.agent, at(offer.since)
    silent = ""
    if agent.liveness != "online":
        silent = f"; it is {agent.liveness}, last heard of at {at(agent.last_seen_at or agent.enrolled_at)}"
    match offer.progress:
        case AgentProgress.DOWNLOADING | AgentProgress.ACTIVATING:
            code = B(offer.progress)
            text = f"It is {offer.progress} {label}, which it was offered at {since}"
        case _:
            code = B.NOT_FETCHED
            text = f"It was offered {label} at {since} and has not begun to fetch it"
            if runs(agent.running, offer):
                text = f"It runs {label} already, but has not answered the offer of {since}"
    return Finding(code, f"{text}{silent}.", offer.deployment)


def _arrived(facts: Facts, offer: Offer, part: Part | None, label: str) -> Told:
    agent = facts.agent
    said = part.updated_at if part else None
    if runs(agent.running, offer):
        yield Finding(
            B.RUNS_DESIRED, f"It runs {label}, as it should, since {at(agent.running_since)}.", offer.deployment
        )
    elif said is not None and (agent.last_seen_at is None or agent.last_seen_at < said):
        yield Finding(
            B.AWAITING_HEARTBEAT,
            f"It reported {label} active at {at(said)}; its next heartbeat has to confirm that.",
            offer.deployment,
        )
    else:
        yield Finding(
            B.DRIFTED,
            f"It should run {label}, but runs {what_runs(facts)} since {at(agent.running_since)}.",
            offer.deployment,
        )
        yield Event(N.TOLD_AGAIN, f"Every heartbeat is answered with {label}; it is the agent that has to act.")


def _failed(facts: Facts, offer: Offer, owner: Deployment | None, label: str) -> Told:
    agent, failure = facts.agent, facts.agent.failure
    if failure is None or failure.deployment != offer.deployment:
        failure = None
    error = owner.part.detail if owner and owner.part else ""
    if offer.action is OfferAction.ROLLBACK:
        yield _failure(B.ROLLBACK_FAILED, f"It failed to go back to {label}", failure, offer, error)
    else:
        yield _failure(B.FAILED, f"It failed to activate {label}", failure, offer, error)
    since = at(agent.running_since)
    if agent.running is None:
        yield Finding(B.DRIFTED, f"It runs nothing since {since}.", offer.deployment)
    elif runs(agent.running, offer):
        yield Finding(
            B.RUNS_DESIRED, f"It runs {label} nevertheless, since {since}: it was done too late.", offer.deployment
        )
    else:
        kept = agent.running_since and offer.since and agent.running_since < offer.since
        by_itself = "It goes on with" if kept else "By itself it went back to"
        yield Finding(
            B.LOCAL_ROLLBACK, f"{by_itself} {what_runs(facts)}, which it runs since {since}.", agent.running.deployment
        )
    if owner is not None and owner.status in {DeploymentStatus.DEPLOYING, DeploymentStatus.FAILED}:
        verb = "rolls back" if offer.action is OfferAction.ROLLBACK else "retries"
        first = " after clearing its configuration" if owner.known_bad and offer.action is OfferAction.ACTIVATE else ""
        yield Event(N.RETRY, f"It tries again only when somebody {verb} the deployment of {owner.label}{first}.")


def _outcome(owner: Deployment, offer: Offer) -> Told:
    """How failures ended the deployment that made the offer, or how many more it bears."""
    percent, part = owner.strategy.failure_threshold_percent, owner.part
    wave = owner.waves.get(part.view.wave) if part else None
    most = f"at most {percent} %" if percent else "none"
    if owner.status in _DID and owner.reason in {"threshold", "timeout"}:
        yield Finding(
            B.THRESHOLD,
            f"{owner.detail.rstrip('.')}, and {most} may: the deployment {_DID[owner.status]}.",
            owner.id,
        )
    elif owner.status is DeploymentStatus.FAILED:
        by = owner.said.get("abort") if owner.reason == "aborted" else None
        who = f" by {by.actor} at {at(by.at)}" if by else ""
        yield Finding(
            B.DEPLOYMENT_FAILED,
            f"The deployment of {owner.label} failed: {owner.reason.replace('_', ' ')}{who}{because(owner.detail)}.",
            owner.id,
        )
    elif owner.status is DeploymentStatus.DEPLOYING and offer.progress is AgentProgress.FAILED and part and wave:
        yield Finding(
            B.THRESHOLD,
            f"{wave.failed} of {wave.total} agents of wave {part.view.wave + 1} failed, and {most} may,"
            " or else the deployment ends.",
            owner.id,
        )


def _way_back(facts: Facts, owner: Deployment, offer: Offer, label: str) -> Told:
    by, failure = owner.said.get("roll_back"), facts.agent.failure
    who = f" by {by.actor} at {at(by.at)}" if by else ""
    why = because(owner.rollback_reason)
    if offer.progress is AgentProgress.ROLLED_BACK:
        yield Finding(B.ROLLED_BACK, f"It went back to {label}: {owner.label} was rolled back{who}{why}.", owner.id)
    else:
        has_to = f"It has to go back to {label}"
        if runs(facts.agent.running, offer):
            has_to = f"It is back on {label}, but has not confirmed it"
        yield Finding(B.ROLLING_BACK, f"{has_to}: {owner.label} is rolled back{who}{why}.", owner.id)
    if failure is not None and failure.deployment == owner.id and offer.progress is not AgentProgress.FAILED:
        yield _failure(B.FAILED, f"It had failed to activate {owner.label}", failure, offer)


def _failure(code: B, what: str, failure: Failure | None, offer: Offer, error: str = "") -> Finding:
    when = f" at {at(failure.since)}" if failure else ""
    why = (failure.detail if failure else error).rstrip(".") or "it did not say why"
    return Finding(code, f"{what}{when}: {why}.", offer.deployment)


def never_offered(facts: Facts) -> Told:
    """Why nothing is wanted of it: each deployment that might reach it, and why it does not."""
    concerned = [each for each in facts.deployments if each.is_current or each.status in _CONCERNED]
    misses = {each.id: miss for each in concerned if (miss := mismatch(facts, each))}
    fitting = [each for each in concerned if each.id not in misses]
    why = "It was offered nothing yet."
    if not concerned:
        why = "Nothing is deployed in its environment."
    elif not fitting:
        why = "No deployment here reaches it."
    elif all(each.known_bad for each in fitting):
        why = "What would reach it is known bad."
    yield Finding(B.NEVER_OFFERED, why)
    yield from misses.values()
    for deployment in fitting:
        if deployment.is_current and deployment.part is None:
            yield from _joins(deployment)


def _passed_over(facts: Facts, offer: Offer) -> Told:
    """Why it does not run what others run: what is current now of its pipeline, and what is of another."""
    source = facts.find(offer.source)
    others = (each for each in facts.deployments if each.status in _CONCERNED or each.is_current)
    for each in others:
        offered_it = each.part is not None and each.part.view.progress is not AgentProgress.PENDING
        if source is None or each == source or offered_it:
            continue
        miss = mismatch(facts, each)
        if miss is not None and miss.code is B.ANOTHER_PIPELINE:
            yield miss
        elif each.is_current and each.pipeline == source.pipeline and each.part is None:
            if miss is None:
                yield from _joins(each)
            else:
                yield Finding(B.SUPERSEDED, f"{source.label} is not current any more: {each.label} is.", each.id)
                yield miss


def _joins(current: Deployment) -> Told:
    """A late joiner that was not offered what is current, yet or at all."""
    if current.known_bad is not None:
        yield known_bad(current, current.known_bad)
    else:
        yield Finding(B.OFFER_DUE, f"{current.label} is current, and it matches its target.", current.id)
        yield Event(
            N.OFFER, f"The worker offers it {current.label}, unless another deployment is changing it just now."
        )
