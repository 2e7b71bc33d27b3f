"""All cases that are not in ``cases_reached`` or ``cases_pending``, such as failures, rollbacks, drift and retries."""

from __future__ import annotations

from dataclasses import replace

from byteor.engine.explain.facts import (
    ActionFacts,
    FailureFacts,
    RunningFacts,
    TargetFacts,
    WaveFacts,
)
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import NextCode as N
from byteor.engine.machines import ApprovalStatus
from byteor.engine.rollout import Strategy
from tests.engine.explain.facts import (
    APPROVAL,
    AS_IT_SHOULD,
    BEAT,
    BROKEN,
    GLASS,
    NEW,
    OLD,
    ROLLED,
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

ENDED = [
    Case(
        "failed within the threshold",
        facts(
            new(
                enlistment=enlistment(P.FAILED),
                strategy=Strategy.all_at_once(failure_threshold_percent=50),
                waves={0: WaveFacts(4, 2, 1, ago(60))},
            ),
            old(),
            offer=offer(NEW, P.FAILED),
            **runs(OLD),
            failure=FailureFacts(NEW, ago(20), "exit code 1."),
        ),
        "agent-1 runs quotes/one: it failed to activate quotes/two at 2026-01-01 02:59:40 UTC: exit code 1.",
        (B.FAILED, B.LOCAL_ROLLBACK, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "failed above the threshold",
        facts(
            new(S.FAILED, enlistment=enlistment(P.FAILED), known_bad="threshold: 1 of 2", **BROKEN),
            old(),
            offer=offer(NEW, P.FAILED),
            **runs(OLD, since=15),
            failure=FailureFacts(NEW, ago(20), "exit code 1"),
        ),
        "agent-1 runs quotes/one: it failed to activate quotes/two at 2026-01-01 02:59:40 UTC: exit code 1.",
        (B.FAILED, B.LOCAL_ROLLBACK, B.THRESHOLD, B.TARGET_ALL, B.KNOWN_BAD),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "failed without an earlier bundle",
        facts(
            new(
                S.FAILED,
                enlistment=enlistment(P.FAILED, detail="no disk"),
                reason="timeout",
                detail="1 of 1 agent of wave 1 failed",
            ),
            offer=offer(NEW, P.FAILED),
            running_since=ago(20),
        ),
        "agent-1 runs nothing: it failed to activate quotes/two: no disk.",
        (B.FAILED, B.DRIFTED, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "finished too late",
        facts(
            new(
                S.FAILED,
                enlistment=enlistment(P.FAILED, detail="did not finish within 600 s"),
                reason="timeout",
                detail="1 of 1",
            ),
            offer=offer(NEW, P.FAILED),
            **runs(NEW, since=5),
        ),
        "agent-1 runs quotes/two: it failed to activate quotes/two: did not finish within 600 s.",
        (B.FAILED, B.RUNS_DESIRED, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "rollback is under way",
        facts(
            new(
                S.ROLLING_BACK,
                enlistment=enlistment(P.OFFERED),
                known_bad="rolled back",
                actions=ROLLED,
                rollback_reason="drops records",
            ),
            old(),
            offer=offer(NEW, P.OFFERED, source=OLD),
            **runs(NEW),
        ),
        (
            "agent-1 runs quotes/two: it must return to quotes/one, because a rollback of quotes/two was started by bob"
            " at 2026-01-01 02:59:20 UTC: drops records."
        ),
        (B.ROLLING_BACK, B.NOT_FETCHED, B.TARGET_ALL, B.KNOWN_BAD),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "rolled back",
        facts(
            new(S.ROLLED_BACK, enlistment=enlistment(P.ROLLED_BACK), rollback_reason=BROKEN["detail"], **BROKEN),
            old(),
            offer=offer(NEW, P.ROLLED_BACK, source=OLD),
            **runs(OLD, since=30),
            failure=FailureFacts(NEW, ago(50), "exit code 1"),
        ),
        "agent-1 returned to quotes/one, because a rollback of quotes/two was started: 1 of 2 agents of wave 1 failed.",
        (B.ROLLED_BACK, B.FAILED, B.RUNS_DESIRED, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "rollback failed",
        facts(
            new(
                S.FAILED,
                enlistment=enlistment(P.FAILED),
                reason="rollback_failed",
                detail="1 agent",
                actions=ROLLED,
            ),
            old(),
            offer=offer(NEW, P.FAILED, source=OLD),
            **runs(NEW),
            failure=FailureFacts(NEW, ago(5), "no disk"),
        ),
        "agent-1 runs quotes/two: it failed to return to quotes/one at 2026-01-01 02:59:55 UTC: no disk.",
        (B.ROLLBACK_FAILED, B.LOCAL_ROLLBACK, B.ROLLING_BACK, B.DEPLOYMENT_FAILED, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "drifted",
        facts(new(S.FAILED), old(), offer=offer(since=7300), **runs(NEW, since=500)),
        "agent-1 should run quotes/one, but has run quotes/two since 2026-01-01 02:51:40 UTC.",
        (B.DRIFTED, B.TARGET_ALL),
        (BEAT, (N.TOLD_AGAIN, None)),
    ),
    Case(
        "runs nothing",
        facts(old(), offer=offer(since=7300), running_since=ago(500)),
        "agent-1 should run quotes/one, but has run nothing since 2026-01-01 02:51:40 UTC.",
        (B.DRIFTED, B.TARGET_ALL),
        (BEAT, (N.TOLD_AGAIN, None)),
    ),
    Case(
        "runs an unknown bundle",
        facts(old(), offer=offer(since=7300), running=RunningFacts(None, "sha256:" + "f" * 64), running_since=ago(9)),
        (
            "agent-1 should run quotes/one, but has run an unknown bundle (sha256:ffffffffff…) since"
            " 2026-01-01 02:59:51 UTC."
        ),
        (B.DRIFTED, B.TARGET_ALL),
        (BEAT, (N.TOLD_AGAIN, None)),
    ),
    Case(
        "late joiner",
        facts(old(enlistment=enlistment(P.ACTIVE, counted=False, offered=60)), **SETTLED),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.LATE_JOINER),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "not counted",
        facts(
            new(enlistment=enlistment(P.DOWNLOADING, counted=False)),
            old(),
            offer=offer(NEW, P.DOWNLOADING),
            **runs(OLD),
        ),
        "agent-1 runs quotes/one: it is downloading quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.DOWNLOADING, B.TARGET_ALL, B.NOT_COUNTED),
        (BEAT, (N.REPORT, None)),
    ),
    Case(
        "superseded break-glass",
        facts(
            new(S.ACTIVE, enlistment=enlistment(P.ACTIVE), break_glass=GLASS, approval=APPROVAL),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 has run quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.BREAK_GLASS),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "break-glass",
        facts(
            new(S.ACTIVE, is_current=True, enlistment=enlistment(P.ACTIVE), break_glass=GLASS, approval=APPROVAL),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 has run quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.BREAK_GLASS),
        (BEAT, (N.RATIFICATION_DUE, 900)),
    ),
    Case(
        "break-glass whose approval was denied and that cannot be rolled back",
        facts(
            new(
                S.ACTIVE,
                is_current=True,
                enlistment=enlistment(P.ACTIVE),
                break_glass=GLASS,
                approval=replace(APPROVAL, status=ApprovalStatus.DENIED),
            ),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 has run quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.BREAK_GLASS),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "returned to a deployment for other agents",
        facts(
            new(
                S.ACTIVE,
                is_current=True,
                enlistment=enlistment(P.ACTIVE),
                target=TargetFacts(names_agent=False, count=1),
            ),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 has run quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.LEFT_TARGET),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "break-glass with later approval",
        facts(
            new(
                S.ACTIVE,
                is_current=True,
                enlistment=enlistment(P.ACTIVE),
                break_glass=GLASS,
                approval=replace(APPROVAL, status=ApprovalStatus.APPROVED),
            ),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 has run quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.BREAK_GLASS),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "retried",
        facts(
            new(
                enlistment=enlistment(P.OFFERED, 1, offered=20),
                strategy=WAVES,
                wave=1,
                waves={1: WaveFacts(2, 1, 0, ago(20))},
                actions={"retry": ActionFacts("bob", ago(20), "disk replaced")},
            ),
            old(),
            offer=offer(NEW, P.OFFERED, since=20),
            **runs(OLD),
            failure=FailureFacts(NEW, ago(90), "no disk"),
        ),
        (
            "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:40 UTC and has not started to"
            " download it."
        ),
        (B.NOT_FETCHED, B.TARGET_ALL, B.WAVE, B.RETRIED),
        (BEAT, (N.TIMES_OUT, 580)),
    ),
    Case(
        "deployment aborted before its wave",
        facts(
            new(
                S.FAILED,
                enlistment=enlistment(P.PENDING, 1),
                reason="aborted",
                detail="wrong bundle",
                actions={"abort": ActionFacts("bob", ago(30), "wrong bundle")},
            ),
            old(),
            **SETTLED,
        ),
        (
            AS_IT_SHOULD + "The deployment of quotes/two stopped before it reached the agent (aborted by bob at"
            " 2026-01-01 02:59:30 UTC: wrong bundle)."
        ),
        (B.RUNS_DESIRED, B.ENDED_BEFORE, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "runs the bundle of an aborted deployment",
        facts(
            new(
                S.FAILED,
                enlistment=enlistment(P.ACTIVE),
                reason="aborted",
                actions={"abort": ActionFacts("bob", ago(30))},
            ),
            old(),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 has run quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.DEPLOYMENT_FAILED, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "deployment failed before its wave",
        facts(
            new(S.ROLLED_BACK, enlistment=enlistment(P.PENDING, 1), known_bad="threshold: 1 of 2", **BROKEN),
            old(),
            **SETTLED,
        ),
        (
            AS_IT_SHOULD + "The deployment of quotes/two stopped before it reached the agent (threshold: 1 of 2"
            " agents of wave 1 failed)."
        ),
        (B.RUNS_DESIRED, B.ENDED_BEFORE, B.KNOWN_BAD, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "offline without a pending change",
        facts(old(), **SETTLED, **SILENT),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.OFFLINE),
        ((N.COMES_BACK, None),),
    ),
    Case(
        "no heartbeat since enrollment",
        facts(last_seen_at=None),
        "agent-1 runs nothing: its environment has no current or upcoming deployment.",
        (B.NEVER_OFFERED,),
        ((N.HEARTBEAT, -89970), (N.NOTHING, None)),
    ),
    Case(
        "drained while a newer deployment is under way",
        facts(new(), old(), **SETTLED, drained_at=ago(60), drain_reason="the disk is replaced."),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.DRAINED),
        ((N.HEARTBEAT, 20), (N.UNDRAIN, None)),
    ),
    Case(
        "drained before anything was offered",
        facts(old(enlistment=None), drained_at=ago(60)),
        "agent-1 runs nothing: no current or upcoming deployment in its environment targets it.",
        (B.NEVER_OFFERED, B.DRAINED, B.DRAINED),
        ((N.HEARTBEAT, 20), (N.UNDRAIN, None)),
    ),
    Case(
        "drained before its offer",
        facts(new(enlistment=enlistment(P.PENDING)), old(), **SETTLED, drained_at=ago(60)),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.DRAINED),
        ((N.HEARTBEAT, 20), (N.UNDRAIN, None)),
    ),
    Case(
        "runs a bundle newer than the backup from which its offer was restored",
        facts(old(), offer=replace(offer(since=7300), held_backup_at=ago(600)), **runs(NEW)),
        "agent-1 runs an unknown bundle (sha256:3…): the offer of quotes/one is held, because the installation was"
        " restored from a backup of 2026-01-01 02:50:00 UTC.",
        (B.OFFER_HELD,),
        ((N.HEARTBEAT, 20), (N.RESUME, None)),
    ),
    Case(
        "runs the offer that is held",
        facts(old(), offer=replace(offer(since=7300), held_backup_at=ago(600)), **runs(OLD)),
        "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.OFFER_HELD),
        ((N.HEARTBEAT, 20), (N.RESUME, None)),
    ),
    Case(
        "decommissioned",
        facts(old(), **SETTLED, decommissioned_at=ago(60)),
        "agent-1 was decommissioned at 2026-01-01 02:59:00 UTC, so it no longer receives offers.",
        (B.DECOMMISSIONED,),
        (),
    ),
]
