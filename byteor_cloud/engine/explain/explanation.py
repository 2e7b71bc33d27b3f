"""The explanation as a whole: reasons in order, events by time, one sentence for all of it."""

from __future__ import annotations

from datetime import timedelta

from byteor_cloud.engine.explain.coming import coming
from byteor_cloud.engine.explain.facts import Facts
from byteor_cloud.engine.explain.findings import Because as B
from byteor_cloud.engine.explain.findings import Event, Explanation, Finding, Told
from byteor_cloud.engine.explain.findings import Next as N
from byteor_cloud.engine.explain.standing import ARRIVED, never_offered, offered, runs
from byteor_cloud.engine.explain.wording import at, because, what_runs

# Their sentences say what it runs.
_WHOLE = {B.RUNS_DESIRED, B.DRIFTED, B.ROLLED_BACK, B.DECOMMISSIONED}


def explain(facts: Facts) -> Explanation:
    """Why the agent runs what it runs, and what happens next."""
    told = list(_tell(facts))
    reasons = tuple(each for each in told if isinstance(each, Finding))
    events = [each for each in told if isinstance(each, Event)]
    open_ended = reasons[0].code in {B.DECOMMISSIONED, B.AWAITING_HEARTBEAT}
    if not open_ended and not {event.code for event in events} - {N.HEARTBEAT}:
        events.append(Event(N.NOTHING, "Nothing is under way: it goes on as it is."))
    events.sort(key=lambda event: (event.at is None, event.at or facts.now))
    return Explanation(_summary(facts, reasons[0]), reasons, tuple(events))


def _summary(facts: Facts, main: Finding) -> str:
    name = facts.agent.name
    if main.code in _WHOLE:
        return f"{name}{main.detail.removeprefix('It')}"
    return f"{name} runs {what_runs(facts)}: {main.detail[0].lower()}{main.detail[1:]}"


def _tell(facts: Facts) -> Told:
    agent = facts.agent
    if agent.decommissioned_at is not None:
        yield Finding(
            B.DECOMMISSIONED, f"It left the fleet at {at(agent.decommissioned_at)}; nothing is offered to it any more."
        )
        return
    offer = agent.offer
    standing = list(never_offered(facts) if offer is None else offered(facts, offer))
    changes = [told for deployment in facts.deployments for told in coming(facts, deployment)]
    # What is to change comes first, unless what is wanted now is not done yet.
    settled = offer is None or (offer.progress in ARRIVED and runs(agent.running, offer))
    yield from (*changes, *standing) if settled else (*standing, *changes)
    yield from _silence(facts)
    if facts.freeze is not None:
        ends = facts.freeze.ends_at
        yield Finding(B.FREEZE_WINDOW, f"A freeze window is open until {at(ends)}{because(facts.freeze.reason)}.")
        yield Event(N.FREEZE_ENDS, "The freeze window ends, and deployments may begin again.", ends)


def _silence(facts: Facts) -> Told:
    agent = facts.agent
    seen = agent.last_seen_at or agent.enrolled_at
    last = f"its last heartbeat was at {at(seen)}"
    if agent.last_seen_at is None:
        last = f"it has sent no heartbeat since it was enrolled at {at(seen)}"
    if agent.liveness == "online":
        then = seen + timedelta(seconds=agent.interval_s)
        overdue = "" if facts.now <= then else "over"
        yield Event(N.HEARTBEAT, f"Its next heartbeat is {overdue}due.", then)
    elif agent.liveness == "stale":
        yield Finding(B.STALE, f"It is silent: {last}, and one is due every {agent.interval_s} s.")
        then = seen + timedelta(seconds=agent.interval_s * agent.offline_after)
        yield Event(N.GOES_OFFLINE, "Without a heartbeat by then it counts as offline.", then)
    else:
        yield Finding(B.OFFLINE, f"It is offline: {last}, and one is due every {agent.interval_s} s.")
        yield Event(N.COMES_BACK, "When it comes back, its first heartbeat tells it what is wanted of it.")
