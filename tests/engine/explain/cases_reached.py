"""Basic cases, for example: no deployment targets the agent, or a deployment of another pipeline takes it over."""

from __future__ import annotations

from dataclasses import replace

from byteor.engine.explain.facts import (
    TargetFacts,
    WaveFacts,
)
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import NextCode as N
from byteor.engine.rollout import Strategy
from tests.engine.explain.facts import (
    AS_IT_SHOULD,
    BEAT,
    FULL,
    NEW,
    OLD,
    OTHER,
    SETTLED,
    WAVES,
    Case,
    P,
    S,
    ago,
    enlistment,
    facts,
    new,
    offer,
    old,
    other,
    runs,
)

REACHED = [
    Case(
        "nothing is deployed",
        facts(),
        "agent-1 runs nothing: its environment has no current or upcoming deployment.",
        (B.NEVER_OFFERED,),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "no deployment matches",
        facts(
            old(target=TargetFacts(selector={"zone": "b", "tier": "edge"}), enlistment=None),
            new(target=TargetFacts(names_agent=False, count=1)),
        ),
        "agent-1 runs nothing: no current or upcoming deployment in its environment targets it.",
        (B.NEVER_OFFERED, B.SELECTOR_MISMATCH, B.OTHER_AGENTS),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "enlisted, but no longer matches",
        facts(
            new(
                strategy=WAVES,
                wave=1,
                target=TargetFacts(selector={"zone": "b"}),
                enlistment=enlistment(P.PENDING, 2),
                waves={1: WaveFacts(4, 1, 0, ago(100))},
            )
        ),
        "agent-1 runs nothing: quotes/two reaches it in wave 3 of 3; wave 2 is under way, 1 of 4 agents finished.",
        (B.WAITS_FOR_WAVE, B.NEVER_OFFERED),
        (BEAT, (N.WAVE_ENDS, 500)),
    ),
    Case(
        "runs another pipeline",
        facts(
            other(),
            old(target=TargetFacts(names_agent=True, count=1), strategy=Strategy.all_at_once()),
            new(S.APPROVED, take_over=True),
            other(status=S.APPROVED, is_current=False),
            **SETTLED,
        ),
        AS_IT_SHOULD + "The deployment of quotes/two is about to start.",
        (B.RUNS_DESIRED, B.OFFER_DUE, B.TARGET_AGENTS, B.ANOTHER_PIPELINE, B.ANOTHER_PIPELINE),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "another pipeline takes it over",
        facts(other(status=S.APPROVED, is_current=False, take_over=True), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of trades/first is about to start.",
        (B.RUNS_DESIRED, B.OFFER_DUE, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "another pipeline took it over before its wave",
        facts(
            other(status=S.DEPLOYING, is_current=False, enlistment=enlistment(P.PENDING, 1), strategy=WAVES),
            old(),
            **SETTLED,
        ),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.ANOTHER_PIPELINE),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "deployment waits behind another",
        facts(
            replace(new(S.APPROVED, blockers=(FULL,)), id=OTHER, bundle="three"),
            new(enlistment=enlistment(P.ACTIVATING)),
            old(),
            offer=offer(NEW, P.ACTIVATING),
            **runs(OLD),
        ),
        "agent-1 runs quotes/one: it is activating quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.ACTIVATING, B.TARGET_ALL, B.WAITS_FOR_TURN),
        (BEAT, (N.TIMES_OUT, 540), (N.TURN, None)),
    ),
    Case(
        "matching deployment is known bad",
        facts(old(enlistment=None, known_bad="threshold: it failed", config_hash="sha256:1")),
        "agent-1 runs nothing: all current and upcoming deployments that target it have config bundles that are known"
        " bad.",
        (B.NEVER_OFFERED, B.KNOWN_BAD),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "offer to a late joiner is due",
        facts(old(enlistment=None)),
        "agent-1 runs nothing: nothing is offered to it.",
        (B.NEVER_OFFERED, B.OFFER_DUE),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "runs the offered bundle",
        facts(old(), **SETTLED),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "targeted by its labels",
        facts(old(target=TargetFacts(selector={"zone": "a"})), **SETTLED),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_SELECTOR),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "its labels changed",
        facts(old(target=TargetFacts(selector={"zone": "b"})), **SETTLED),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.LEFT_TARGET),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "superseded by a deployment for other agents",
        facts(
            new(S.ACTIVE, is_current=True, target=TargetFacts(names_agent=False, count=1)),
            old(is_current=False),
            **SETTLED,
        ),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.SUPERSEDED, B.OTHER_AGENTS),
        (BEAT, (N.NOTHING, None)),
    ),
]
