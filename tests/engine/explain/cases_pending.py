"""Cases of deployments that the agent does not run yet: offered, under way, waiting, or unable to start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.explain.facts import (
    ActionFacts,
    FreezeFacts,
    WaveFacts,
)
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import NextCode as N
from byteor.engine.machines import ApprovalStatus
from byteor.engine.rollout import Hold
from byteor.engine.wave_hold import HoldFacts, WaveHold
from tests.engine.explain.facts import (
    APPROVAL,
    APPROVAL_ID,
    AS_IT_SHOULD,
    BEAT,
    FROZEN,
    FULL,
    NEW,
    OLD,
    SETTLED,
    SILENT,
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
    runs,
)

NAMED = replace(APPROVAL, deciders="Grace or Ada")
STARTS = Blocker(BlockerCode.START_AT, "The start time (2026-01-01 03:10:00 UTC) has not been reached.", ago(-600))
HELD: dict[str, Any] = {
    "strategy": WAVES,
    "wave_done_at": ago(400),
    "enlistment": enlistment(P.PENDING, 2),
    "waves": {0: WaveFacts(1, 1)},
    "wave_hold": HoldFacts(
        hold=WaveHold(2, Hold.APPROVAL, ago(400), APPROVAL_ID), waves=3, given=0, required=1, deciders="Grace or Ada"
    ),
}
GIVEN = replace(APPROVAL, status=ApprovalStatus.APPROVED, given=2)
RUNNING = Blocker(BlockerCode.GATE_RUNNING, "The regression has not finished.")
PENDING = [
    Case(
        "offered but not fetched",
        facts(new(enlistment=enlistment(P.OFFERED)), old(), offer=offer(NEW, P.OFFERED), **runs(OLD)),
        (
            "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:00 UTC and has not started to"
            " download it."
        ),
        (B.NOT_FETCHED, B.TARGET_ALL),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "offered while offline",
        facts(new(enlistment=enlistment(P.OFFERED)), old(), offer=offer(NEW, P.OFFERED), **runs(OLD), **SILENT),
        (
            "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:00 UTC and has not started to"
            " download it. The agent is offline and has sent no heartbeat since 2026-01-01 01:53:20 UTC."
        ),
        (B.NOT_FETCHED, B.TARGET_ALL, B.OFFLINE),
        ((N.TIMES_OUT, 540), (N.COMES_BACK, None)),
    ),
    Case(
        "offered while stale",
        facts(
            new(enlistment=enlistment(P.OFFERED)),
            old(),
            offer=offer(NEW, P.OFFERED),
            **runs(OLD),
            liveness="stale",
            last_seen_at=ago(200),
        ),
        (
            "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:00 UTC and has not started to"
            " download it. The agent is stale and has sent no heartbeat since 2026-01-01 02:56:40 UTC."
        ),
        (B.NOT_FETCHED, B.TARGET_ALL, B.STALE),
        ((N.GOES_OFFLINE, 100), (N.TIMES_OUT, 540)),
    ),
    Case(
        "downloading",
        facts(new(enlistment=enlistment(P.DOWNLOADING)), offer=offer(NEW, P.DOWNLOADING)),
        "agent-1 runs nothing: it is downloading quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.DOWNLOADING, B.TARGET_ALL),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "activating",
        facts(new(enlistment=enlistment(P.ACTIVATING)), old(), offer=offer(NEW, P.ACTIVATING), **runs(OLD)),
        "agent-1 runs quotes/one: it is activating quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.ACTIVATING, B.TARGET_ALL),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "reported without a later heartbeat",
        facts(new(enlistment=enlistment(P.ACTIVE)), old(), offer=offer(NEW), **runs(OLD), last_seen_at=ago(55)),
        (
            "agent-1 runs quotes/one: it reported at 2026-01-01 02:59:10 UTC that it runs quotes/two; its"
            " next heartbeat must confirm that."
        ),
        (B.AWAITING_HEARTBEAT, B.TARGET_ALL),
        ((N.HEARTBEAT, -25),),
    ),
    Case(
        "waits for its wave",
        facts(
            new(strategy=WAVES, wave=1, enlistment=enlistment(P.PENDING, 2), waves={1: WaveFacts(4, 1, 0, ago(100))}),
            old(),
            **SETTLED,
        ),
        (AS_IT_SHOULD + "quotes/two reaches it in wave 3 of 3; wave 2 is under way, 1 of 4 agents finished."),
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.TARGET_ALL),
        (BEAT, (N.WAVE_ENDS, 500)),
    ),
    Case(
        "waits for its wave while timeouts are suspended",
        facts(
            new(
                strategy=WAVES,
                wave=1,
                enlistment=enlistment(P.PENDING, 2),
                waves={1: WaveFacts(4, 1, 0, ago(100))},
                timeout_s=None,
            ),
            old(),
            **SETTLED,
        ),
        (AS_IT_SHOULD + "quotes/two reaches it in wave 3 of 3; wave 2 is under way, 1 of 4 agents finished."),
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.TARGET_ALL),
        (BEAT, (N.WAVE_ENDS, None)),
    ),
    Case(
        "offered while timeouts are suspended",
        facts(
            new(enlistment=enlistment(P.OFFERED), timeout_s=None, held_up="The job waits."),
            old(),
            offer=offer(NEW, P.OFFERED),
            **runs(OLD),
        ),
        (
            "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:00 UTC and has not started to"
            " download it."
        ),
        (B.NOT_FETCHED, B.TARGET_ALL, B.HELD_UP),
        (BEAT, (N.REPORT, None)),
    ),
    Case(
        "its start is held up",
        facts(new(S.APPROVED, held_up="The job releases.build failed."), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two is due to start, but is held up.",
        (B.RUNS_DESIRED, B.OFFER_DUE, B.HELD_UP, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "previous wave is done",
        facts(
            new(
                strategy=WAVES,
                wave=0,
                wave_done_at=ago(120),
                enlistment=enlistment(P.PENDING, 1),
                waves={0: WaveFacts(1, 1)},
            ),
            old(),
            **SETTLED,
        ),
        AS_IT_SHOULD + "quotes/two reaches it in wave 2 of 3; wave 1 is done, 1 of 1 agent finished.",
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.TARGET_ALL),
        (BEAT, (N.WAVE_BEGINS, 180)),
    ),
    Case(
        "its wave is being offered",
        facts(new(strategy=WAVES, wave=1, enlistment=enlistment(P.PENDING, 1)), old(), **SETTLED),
        AS_IT_SHOULD + "quotes/two is due to be offered to it now.",
        (B.RUNS_DESIRED, B.OFFER_DUE, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "paused before its wave",
        facts(
            new(
                strategy=WAVES,
                enlistment=enlistment(P.PENDING, 1),
                paused_at=ago(30),
                waves={0: WaveFacts(1, 1)},
                wave_done_at=ago(90),
                actions={"pause": ActionFacts("bob", ago(30), "looks odd")},
            ),
            old(),
            **SETTLED,
        ),
        AS_IT_SHOULD + "quotes/two reaches it in wave 2 of 3; wave 1 is done, 1 of 1 agent finished.",
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.PAUSED, B.TARGET_ALL),
        (BEAT, (N.RESUME, None)),
    ),
    Case(
        "waits for the approval of its wave",
        facts(new(**HELD), old(), **SETTLED),
        AS_IT_SHOULD + "quotes/two reaches it in wave 3 of 3; wave 1 is done, 1 of 1 agent finished. Wave 3 of 3 "
        "has been waiting for approval since 2026-01-01 02:53:20 UTC: nobody has approved it yet. Grace or Ada can "
        "decide.",
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.WAITS_FOR_HOLD, B.TARGET_ALL),
        (BEAT, (N.HOLD_ENDS, None)),
    ),
    Case(
        "waits for somebody to start an earlier wave",
        facts(
            new(**{**HELD, "wave_hold": HoldFacts(hold=WaveHold(1, Hold.MANUAL, ago(400)), waves=3)}), old(), **SETTLED
        ),
        AS_IT_SHOULD + "quotes/two reaches it in wave 3 of 3; wave 1 is done, 1 of 1 agent finished. Wave 2 of 3 "
        "has been waiting since 2026-01-01 02:53:20 UTC for an operator or admin to start it.",
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.WAITS_FOR_HOLD, B.TARGET_ALL),
        (BEAT, (N.HOLD_ENDS, None)),
    ),
    Case(
        "paused while its wave waits for approval",
        facts(new(**HELD, paused_at=ago(30)), old(), **SETTLED),
        AS_IT_SHOULD + "quotes/two reaches it in wave 3 of 3; wave 1 is done, 1 of 1 agent finished. Wave 3 of 3 "
        "has been waiting for approval since 2026-01-01 02:53:20 UTC: nobody has approved it yet. Grace or Ada can "
        "decide.",
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.WAITS_FOR_HOLD, B.PAUSED, B.TARGET_ALL),
        (BEAT, (N.RESUME, None)),
    ),
    Case(
        "waits for its start time",
        facts(new(S.APPROVED, blockers=(STARTS,), approval=GIVEN), old(), **SETTLED),
        AS_IT_SHOULD
        + "The deployment of quotes/two waits because the start time (2026-01-01 03:10:00 UTC) has not been "
        "reached.",
        (B.RUNS_DESIRED, B.WAITS_FOR_START_TIME, B.TARGET_ALL),
        (BEAT, (N.START_TIME, 600), (N.APPROVAL_EXPIRES, 1800)),
    ),
    Case(
        "waits for its start time and for another deployment",
        facts(new(S.APPROVED, blockers=(STARTS, FULL)), old(), **SETTLED),
        AS_IT_SHOULD
        + "The deployment of quotes/two waits because the start time (2026-01-01 03:10:00 UTC) has not been "
        "reached.",
        (B.RUNS_DESIRED, B.WAITS_FOR_START_TIME, B.WAITS_FOR_TURN, B.TARGET_ALL),
        (BEAT, (N.START_TIME, 600), (N.TURN, None)),
    ),
    Case(
        "waits for named reviewers",
        facts(new(S.PENDING_APPROVAL, approval=NAMED), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two waits for approval: 1 of 2 people have approved it. "
        "Grace or Ada can decide.",
        (B.RUNS_DESIRED, B.WAITS_FOR_APPROVAL, B.TARGET_ALL),
        (BEAT, (N.APPROVAL_EXPIRES, 1800)),
    ),
    Case(
        "its build is held up",
        facts(new(S.BUILDING, held_up="The job releases.build waits: No space left on device."), old(), **SETTLED),
        AS_IT_SHOULD + "The bundle of quotes/two is being built.",
        (B.RUNS_DESIRED, B.BUILDING, B.HELD_UP, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "waits for approval",
        facts(new(S.PENDING_APPROVAL, approval=APPROVAL), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two waits for approval: 1 of 2 people have approved it.",
        (B.RUNS_DESIRED, B.WAITS_FOR_APPROVAL, B.TARGET_ALL),
        (BEAT, (N.APPROVAL_EXPIRES, 1800)),
    ),
    Case(
        "waits for a freeze window",
        facts(
            new(S.APPROVED, blockers=(FROZEN,), approval=GIVEN),
            old(),
            freeze=FreezeFacts("the close", ago(-600)),
            **SETTLED,
        ),
        AS_IT_SHOULD + "The deployment of quotes/two waits because a freeze window is open.",
        (B.RUNS_DESIRED, B.WAITS_FOR_FREEZE, B.TARGET_ALL, B.FREEZE_WINDOW),
        (BEAT, (N.FREEZE_ENDS, 600), (N.APPROVAL_EXPIRES, 1800)),
    ),
    Case(
        "freeze window is overridden",
        facts(new(S.APPROVED), old(), freeze=FreezeFacts("the close", ago(-600)), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two is about to start.",
        (B.RUNS_DESIRED, B.OFFER_DUE, B.TARGET_ALL, B.FREEZE_WINDOW),
        (BEAT, (N.FREEZE_ENDS, 600), (N.OFFER, None)),
    ),
    Case(
        "waits for another deployment",
        facts(new(S.APPROVED, blockers=(FULL,)), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two waits because at most 1 may be in flight.",
        (B.RUNS_DESIRED, B.WAITS_FOR_TURN, B.TARGET_ALL),
        (BEAT, (N.TURN, None)),
    ),
    Case(
        "waits for several blockers",
        facts(new(S.APPROVED, blockers=(FROZEN, FULL)), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two waits because a freeze window is open.",
        (B.RUNS_DESIRED, B.WAITS_FOR_FREEZE, B.WAITS_FOR_TURN, B.TARGET_ALL),
        (BEAT, (N.TURN, None)),
    ),
    Case(
        "waits for approval and the replay gate",
        facts(new(S.PENDING_APPROVAL, approval=APPROVAL, blockers=(RUNNING,)), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two waits for approval: 1 of 2 people have approved it.",
        (B.RUNS_DESIRED, B.WAITS_FOR_APPROVAL, B.WAITS_FOR_GATE, B.TARGET_ALL),
        (BEAT, (N.APPROVAL_EXPIRES, None)),
    ),
    Case(
        "waits for the replay gate with a used approval",
        facts(
            new(S.APPROVED, approval=replace(GIVEN, is_used=True), blockers=(replace(RUNNING, until=ago(-60)),)),
            old(),
            **SETTLED,
        ),
        AS_IT_SHOULD + "The deployment of quotes/two waits for the replay gate. The regression has not finished.",
        (B.RUNS_DESIRED, B.WAITS_FOR_GATE, B.TARGET_ALL),
        (BEAT, (N.GATE_DEADLINE, 60)),
    ),
    Case(
        "waits without a deadline for the replay gate",
        facts(new(S.APPROVED, approval=replace(GIVEN, is_used=True), blockers=(RUNNING,)), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two waits for the replay gate. The regression has not finished.",
        (B.RUNS_DESIRED, B.WAITS_FOR_GATE, B.TARGET_ALL),
        (BEAT, (N.TURN, None)),
    ),
    Case(
        "is approved and about to start",
        facts(new(S.APPROVED, approval=GIVEN), old(), **SETTLED),
        AS_IT_SHOULD + "The deployment of quotes/two is about to start.",
        (B.RUNS_DESIRED, B.OFFER_DUE, B.TARGET_ALL),
        (BEAT, (N.APPROVAL_EXPIRES, 1800), (N.OFFER, None)),
    ),
    Case(
        "its approval has expired",
        facts(new(S.APPROVED, approval=replace(GIVEN, expires_at=ago(5))), old(), **SETTLED),
        AS_IT_SHOULD.strip(),
        (B.RUNS_DESIRED, B.TARGET_ALL),
        ((N.APPROVAL_EXPIRES, -5), BEAT),
    ),
    Case(
        "its approval was revoked",
        facts(new(S.APPROVED, approval=replace(GIVEN, status=ApprovalStatus.REVOKED)), old(), **SETTLED),
        AS_IT_SHOULD.strip(),
        (B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "approved but known bad",
        facts(new(S.APPROVED, known_bad="drops records"), old(), **SETTLED),
        AS_IT_SHOULD.strip(),
        (B.RUNS_DESIRED, B.KNOWN_BAD, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "being built",
        facts(new(S.BUILDING), old(), **SETTLED),
        AS_IT_SHOULD + "The bundle of quotes/two is being built.",
        (B.RUNS_DESIRED, B.BUILDING, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "the deployment is still adding agents",
        facts(new(is_enlisting=True), old(), **SETTLED),
        AS_IT_SHOULD + "It matches the target of quotes/two, which is still adding agents.",
        (B.RUNS_DESIRED, B.WAITS_FOR_WAVE, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "late joiner of a deployment under way",
        facts(new(), old(), **SETTLED),
        AS_IT_SHOULD + "It matches the target of quotes/two, but did not match it when the deployment started.",
        (B.RUNS_DESIRED, B.LATE_JOINER, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
]
