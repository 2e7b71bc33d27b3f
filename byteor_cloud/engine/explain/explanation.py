"""The complete explanation of an agent: a summary, reasons by importance, and events by time."""

from __future__ import annotations

from datetime import timedelta

from byteor_cloud.engine.explain.facts import Facts
from byteor_cloud.engine.explain.findings import BecauseCode as B
from byteor_cloud.engine.explain.findings import Explanation, Finding, NextEvent, Statements
from byteor_cloud.engine.explain.findings import NextCode as N
from byteor_cloud.engine.explain.offer_state import (
    ARRIVED,
    explain_missing_offer,
    explain_offer,
    is_running_offer,
)
from byteor_cloud.engine.explain.pending import explain_pending
from byteor_cloud.engine.explain.wording import at, because, running_label

# The sentences of these findings already say what the agent runs.
_WHOLE = {B.RUNS_DESIRED, B.DRIFTED, B.ROLLED_BACK, B.DECOMMISSIONED}


def explain(facts: Facts) -> Explanation:
    """Explain why the agent runs its current bundle, and what happens next."""
    statements = list(_statements(facts))
    reasons = tuple(each for each in statements if isinstance(each, Finding))
    events = [each for each in statements if isinstance(each, NextEvent)]
    open_ended = reasons[0].code in {B.DECOMMISSIONED, B.AWAITING_HEARTBEAT}
    if not open_ended and not {event.code for event in events} - {N.HEARTBEAT}:
        events.append(NextEvent(N.NOTHING, "No change is planned. It keeps running as it is."))
    events.sort(key=lambda event: (event.at is None, event.at or facts.now))
    return Explanation(_summary(facts, reasons[0]), reasons, tuple(events))


def _summary(facts: Facts, main: Finding) -> str:
    name = facts.agent.name
    if main.code in _WHOLE:
        return f"{name}{main.detail.removeprefix('It')}"
    return f"{name} runs {running_label(facts)}: {main.detail[0].lower()}{main.detail[1:]}"


def _statements(facts: Facts) -> Statements:
    agent = facts.agent
    if agent.decommissioned_at is not None:
        yield Finding(
            B.DECOMMISSIONED,
            f"It was decommissioned at {at(agent.decommissioned_at)}, so nothing is offered to it any more.",
        )
        return
    offer = agent.offer
    offer_state = list(explain_missing_offer(facts) if offer is None else explain_offer(facts, offer))
    pending = [each for deployment in facts.deployments for each in explain_pending(facts, deployment)]
    # Pending deployments come first, unless the agent has not completed its current offer.
    settled = offer is None or (offer.progress in ARRIVED and is_running_offer(agent.running, offer))
    yield from (*pending, *offer_state) if settled else (*offer_state, *pending)
    if agent.drained_at is not None:
        yield Finding(
            B.DRAINED,
            f"It is drained since {at(agent.drained_at)}{because(agent.drain_reason)}."
            " It gets no new offers, and no rollout waits for it.",
        )
        yield NextEvent(N.UNDRAIN, "Once somebody undrains it, it is offered what is current for it then.")
    yield from _liveness(facts)
    if facts.freeze is not None:
        ends = facts.freeze.ends_at
        yield Finding(B.FREEZE_WINDOW, f"A freeze window is open until {at(ends)}{because(facts.freeze.reason)}.")
        yield NextEvent(N.FREEZE_ENDS, "The freeze window ends, and deployments may begin again.", ends)


def _liveness(facts: Facts) -> Statements:
    agent = facts.agent
    seen = agent.last_seen_at or agent.enrolled_at
    last = f"its last heartbeat was at {at(seen)}"
    if agent.last_seen_at is None:
        last = f"it has sent no heartbeat since it was enrolled at {at(seen)}"
    if agent.liveness == "online":
        then = seen + timedelta(seconds=agent.interval_s)
        overdue = "" if facts.now <= then else "over"
        yield NextEvent(N.HEARTBEAT, f"Its next heartbeat is {overdue}due.", then)
    elif agent.liveness == "stale":
        yield Finding(B.STALE, f"It is silent: {last}, and one is due every {agent.interval_s} s.")
        then = seen + timedelta(seconds=agent.interval_s * agent.offline_after)
        yield NextEvent(N.GOES_OFFLINE, "If it sends no heartbeat by then, it counts as offline.", then)
    else:
        yield Finding(B.OFFLINE, f"It is offline: {last}, and one is due every {agent.interval_s} s.")
        yield NextEvent(
            N.COMES_BACK, "When it comes back, the response to its first heartbeat says what it should run."
        )
