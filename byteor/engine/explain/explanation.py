"""The complete explanation of an agent: a summary, reasons in order of importance, and events in order of time."""

from __future__ import annotations

from datetime import timedelta

from byteor.engine.explain.facts import Facts, OfferFacts
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import Explanation, Finding, NextEvent, Statements
from byteor.engine.explain.findings import NextCode as N
from byteor.engine.explain.offer_state import (
    ARRIVED,
    explain_missing_offer,
    explain_offer,
    is_running_offer,
)
from byteor.engine.explain.pending import explain_pending
from byteor.engine.explain.wording import at, because, running_label

# If a summary starts with one of these findings, it does not also state what the agent runs.
_WHOLE = {B.RUNS_DESIRED, B.DRIFTED, B.ROLLED_BACK, B.DECOMMISSIONED}
# Findings about what will replace, or would have replaced, the bundle that the agent runs.
_COMING = {
    B.WAITS_FOR_APPROVAL, B.WAITS_FOR_FREEZE, B.WAITS_FOR_GATE, B.WAITS_FOR_TURN, B.WAITS_FOR_WAVE,
    B.WAITS_FOR_START_TIME, B.BUILDING, B.OFFER_DUE, B.LATE_JOINER, B.ENDED_BEFORE,
}  # fmt: skip


def explain(facts: Facts) -> Explanation:
    """Explain why the agent runs its current bundle, and what will happen next."""
    statements = list(_statements(facts))
    reasons = tuple(each for each in statements if isinstance(each, Finding))
    events = [each for each in statements if isinstance(each, NextEvent)]
    open_ended = reasons[0].code in {B.DECOMMISSIONED, B.AWAITING_HEARTBEAT}
    if not open_ended and not {event.code for event in events} - {N.HEARTBEAT}:
        events.append(NextEvent(N.NOTHING, f"No change is planned. {_what_stays(facts)}"))
    events.sort(key=lambda event: (event.at is None, event.at or facts.now))
    return Explanation(_summary(facts, reasons), reasons, tuple(events))


def _what_stays(facts: Facts) -> str:
    """Return a sentence about what the agent keeps running: the offered bundle, another one, or nothing."""
    agent, offer = facts.agent, facts.agent.offer
    if agent.running is None:
        return "It runs nothing."
    if offer is None:
        return f"It runs {running_label(facts)}, although nothing is offered to it."
    if is_running_offer(agent.running, offer):
        return "It keeps running its current bundle."
    return f"It runs {running_label(facts)}, although it should run {facts.label(offer.source, offer.bundle_hash)}."


def _summary(facts: Facts, reasons: tuple[Finding, ...]) -> str:
    name, main = facts.agent.name, reasons[0]
    if main.code in _WHOLE:
        coming = [each.detail for each in reasons[1:2] if each.code in _COMING]
        # The finding about a hold comes right after the finding about its wave.
        coming += [each.detail for each in reasons[2:3] if each.code is B.WAITS_FOR_HOLD]
        return " ".join([f"{name}{main.detail.removeprefix('It')}", *coming])
    return f"{name} runs {running_label(facts)}: {main.detail[0].lower()}{main.detail[1:]}"


def _statements(facts: Facts) -> Statements:
    agent = facts.agent
    if agent.decommissioned_at is not None:
        yield Finding(
            B.DECOMMISSIONED,
            f"It was decommissioned at {at(agent.decommissioned_at)}, so it no longer receives offers.",
        )
        return
    offer = agent.offer
    offer_state = list(explain_missing_offer(facts) if offer is None else explain_offer(facts, offer))
    if offer is not None and offer.held_backup_at is not None:
        is_settled = offer.progress in ARRIVED and is_running_offer(agent.running, offer)
        offer_state = [*offer_state[:is_settled], *_held(facts, offer)]
    pending = [each for deployment in facts.deployments for each in explain_pending(facts, deployment)]
    if offer is None:
        yield from (*pending, *offer_state)
    elif offer.progress in ARRIVED and is_running_offer(agent.running, offer):
        # The agent runs what it should, and the first finding about its offer says so. Next come the deployments that
        # have not reached the agent, and then the other findings about the offer.
        yield from (offer_state[0], *pending, *offer_state[1:])
    else:
        yield from (*offer_state, *pending)
    if agent.drained_at is not None:
        yield Finding(
            B.DRAINED,
            f"It has been drained since {at(agent.drained_at)}{because(agent.drain_reason)}."
            " It receives no new offers except rollbacks, and no rollout waits for it.",
        )
        yield NextEvent(N.UNDRAIN, "When somebody undrains it, it can receive new offers again.")
    yield from _liveness(facts)
    if facts.freeze is not None:
        ends = facts.freeze.ends_at
        yield Finding(B.FREEZE_WINDOW, f"A freeze window lasts until {at(ends)}{because(facts.freeze.reason)}.")
        yield NextEvent(
            N.FREEZE_ENDS, "The freeze window ends. Deployments may start unless another window is open.", ends
        )


def _held(facts: Facts, offer: OfferFacts) -> Statements:
    label, backup_at = facts.label(offer.source, offer.bundle_hash), at(offer.held_backup_at)
    detail = f"The offer of {label} is held, because the installation was restored from a backup of {backup_at}."
    yield Finding(B.OFFER_HELD, detail, offer.deployment)
    yield NextEvent(
        N.RESUME, f"When somebody resumes the held offers of the environment, the agent is offered {label}."
    )


def _liveness(facts: Facts) -> Statements:
    agent = facts.agent
    seen = agent.last_seen_at or agent.enrolled_at
    last = f"its last heartbeat was at {at(seen)}"
    if agent.last_seen_at is None:
        last = f"it has sent no heartbeat since it was enrolled at {at(seen)}"
    if agent.liveness == "online":
        then = seen + timedelta(seconds=agent.interval_s)
        # A heartbeat takes some time to arrive. It counts as overdue only when the heartbeat after it would be due.
        overdue = "over" if facts.now > then + timedelta(seconds=agent.interval_s) else ""
        yield NextEvent(N.HEARTBEAT, f"Its next heartbeat is {overdue}due.", then)
    elif agent.liveness == "stale":
        yield Finding(B.STALE, f"It is silent: {last}, and a heartbeat is due every {agent.interval_s:g} s.")
        then = seen + timedelta(seconds=agent.interval_s * agent.offline_after)
        yield NextEvent(N.GOES_OFFLINE, "If it sends no heartbeat by then, it counts as offline.", then)
    else:
        yield Finding(B.OFFLINE, f"It is offline: {last}, and a heartbeat is due every {agent.interval_s:g} s.")
        yield NextEvent(
            N.COMES_BACK,
            "When it is back, the response to its first heartbeat contains its offer, if there is one. A held offer"
            " is not sent.",
        )
