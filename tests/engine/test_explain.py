"""Why an agent runs what it runs, and what happens next: one case a line of the table, exact codes and times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from byteor_cloud.engine.explain import explain
from byteor_cloud.engine.explain.coming import pause_ends_at, times_out_at
from byteor_cloud.engine.explain.facts import (
    Agent,
    BreakGlass,
    Consent,
    Deployment,
    Facts,
    Failure,
    Freeze,
    Offer,
    Part,
    Running,
    Said,
    Target,
    Wave,
)
from byteor_cloud.engine.explain.findings import Because as B
from byteor_cloud.engine.explain.findings import Next as N
from byteor_cloud.engine.machines import AgentProgress, ApprovalStatus, DeploymentStatus
from byteor_cloud.engine.rollout import AgentView, Strategy, plan_rollout

P, S = AgentProgress, DeploymentStatus
NOW = datetime(2026, 1, 1, 3, tzinfo=UTC)
ME, OLD, NEW, OTHER, APPROVAL = (UUID(int=number) for number in range(1, 6))
SEEN = NOW - timedelta(seconds=10)
BEAT = (N.HEARTBEAT, 20)
WAVES = Strategy(percents=(5, 25, 100), pause_s=300)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def part(
    progress: AgentProgress, wave: int = 0, *, counted: bool = True, offered: float | None = 60, **more: Any
) -> Part:
    at = None if progress is P.PENDING or offered is None else ago(offered)
    return Part(AgentView(ME, wave, counted, progress, at), updated_at=ago(50), **more)


def old(**more: Any) -> Deployment:
    """What is current."""
    given = {"status": S.ACTIVE, "is_current": True, "activated_at": ago(7200), "part": part(P.ACTIVE, offered=7300)}
    return Deployment(OLD, "quotes", "one", **{**given, **more})


def new(status: DeploymentStatus = S.DEPLOYING, **more: Any) -> Deployment:
    """What is to follow."""
    return Deployment(NEW, "quotes", "two", status, config_hash="sha256:2", **more)


def other(**more: Any) -> Deployment:
    """Of another pipeline."""
    given = {"status": S.ACTIVE, "is_current": True, **more}
    return Deployment(OTHER, "trades", "first", **given)


def offer(
    of: UUID = OLD, progress: AgentProgress = P.ACTIVE, *, source: UUID | None = None, since: float = 60
) -> Offer:
    action = "activate" if source is None else "rollback"
    source = source or of
    return Offer(of, source, action, f"sha256:{source.int}", ago(since), progress)


def runs(of: UUID, *, since: float = 3600) -> dict[str, Any]:
    return {"running": Running(of, f"sha256:{of.int}"), "running_since": ago(since)}


def facts(*deployments: Deployment, freeze: Freeze | None = None, **agent: Any) -> Facts:
    known = {"last_seen_at": SEEN, "labels": {"zone": "a"}, **agent}
    return Facts(NOW, Agent(ME, "agent-1", ago(90000), **known), deployments=deployments, freeze=freeze)


@dataclass(frozen=True)
class Case:
    name: str
    facts: Facts
    summary: str
    because: tuple[B, ...]
    next: tuple[tuple[N, float | None], ...]  # in seconds from now


SETTLED = {"offer": offer(since=7300), **runs(OLD)}
SILENT: dict[str, Any] = {"liveness": "offline", "last_seen_at": ago(4000)}
CONSENT = Consent(APPROVAL, ApprovalStatus.PENDING, 1, 2, ago(-1800))
GLASS = BreakGlass("alice", "the market opens", ago(-900))
BROKEN = {"reason": "threshold", "detail": "1 of 2 agents of wave 1 failed"}
ROLLED = {"roll_back": Said("bob", ago(40), "drops records")}

CASES = [
    Case(
        "nothing is deployed",
        facts(),
        "agent-1 runs nothing: nothing is deployed in its environment.",
        (B.NEVER_OFFERED,),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "no deployment matches",
        facts(
            old(target=Target(selector={"zone": "b", "tier": "edge"}), part=None),
            new(target=Target(names_it=False, count=1)),
        ),
        "agent-1 runs nothing: no deployment here reaches it.",
        (B.NEVER_OFFERED, B.SELECTOR_MISMATCH, B.OTHER_AGENTS),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "it runs another pipeline",
        facts(
            other(),
            old(target=Target(names_it=True, count=1), strategy=Strategy()),
            new(S.APPROVED, take_over=True),
            other(status=S.APPROVED, is_current=False),
            **SETTLED,
        ),
        "agent-1 runs quotes/one: the deployment of quotes/two begins now.",
        (B.OFFER_DUE, B.RUNS_DESIRED, B.TARGET_AGENTS, B.ANOTHER_PIPELINE, B.ANOTHER_PIPELINE),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "another pipeline takes it over",
        facts(other(status=S.APPROVED, is_current=False, take_over=True), old(), **SETTLED),
        "agent-1 runs quotes/one: the deployment of trades/first begins now.",
        (B.OFFER_DUE, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "another pipeline came before its wave",
        facts(other(status=S.DEPLOYING, is_current=False, part=part(P.PENDING, 1), strategy=WAVES), old(), **SETTLED),
        "agent-1 runs quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.ANOTHER_PIPELINE),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "busy, while another waits",
        facts(
            replace(new(S.APPROVED), id=OTHER, bundle="three"),
            new(part=part(P.ACTIVATING)),
            old(),
            offer=offer(NEW, P.ACTIVATING),
            **runs(OLD),
        ),
        "agent-1 runs quotes/one: it is activating quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.ACTIVATING, B.TARGET_ALL, B.WAITS_FOR_TURN),
        (BEAT, (N.TIMES_OUT, 540), (N.TURN, None)),
    ),
    Case(
        "what it matches is known bad",
        facts(old(part=None, known_bad="threshold: it failed", config_hash="sha256:1")),
        "agent-1 runs nothing: what would reach it is known bad.",
        (B.NEVER_OFFERED, B.KNOWN_BAD),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "its late offer is due",
        facts(old(part=None)),
        "agent-1 runs nothing: it was offered nothing yet.",
        (B.NEVER_OFFERED, B.OFFER_DUE),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "it runs what it should",
        facts(old(), **SETTLED),
        "agent-1 runs quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "chosen by its labels",
        facts(old(target=Target(selector={"zone": "a"})), **SETTLED),
        "agent-1 runs quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_SELECTOR),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "its labels changed",
        facts(old(target=Target(selector={"zone": "b"})), **SETTLED),
        "agent-1 runs quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.LEFT_TARGET),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "superseded by one for others",
        facts(
            new(S.ACTIVE, is_current=True, target=Target(names_it=False, count=1)),
            old(is_current=False),
            **SETTLED,
        ),
        "agent-1 runs quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.SUPERSEDED, B.OTHER_AGENTS),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "offered, not fetched",
        facts(new(part=part(P.OFFERED)), old(), offer=offer(NEW, P.OFFERED), **runs(OLD)),
        "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:00 UTC and has not begun to fetch it.",
        (B.NOT_FETCHED, B.TARGET_ALL),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "offered, offline",
        facts(new(part=part(P.OFFERED)), old(), offer=offer(NEW, P.OFFERED), **runs(OLD), **SILENT),
        (
            "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:00 UTC and has not begun to"
            " fetch it; it is offline, last heard of at 2026-01-01 01:53:20 UTC."
        ),
        (B.NOT_FETCHED, B.TARGET_ALL, B.OFFLINE),
        ((N.TIMES_OUT, 540), (N.COMES_BACK, None)),
    ),
    Case(
        "offered, silent for a while",
        facts(
            new(part=part(P.OFFERED)),
            old(),
            offer=offer(NEW, P.OFFERED),
            **runs(OLD),
            liveness="stale",
            last_seen_at=ago(200),
        ),
        (
            "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:00 UTC and has not begun to"
            " fetch it; it is stale, last heard of at 2026-01-01 02:56:40 UTC."
        ),
        (B.NOT_FETCHED, B.TARGET_ALL, B.STALE),
        ((N.GOES_OFFLINE, 100), (N.TIMES_OUT, 540)),
    ),
    Case(
        "downloading",
        facts(new(part=part(P.DOWNLOADING)), offer=offer(NEW, P.DOWNLOADING)),
        "agent-1 runs nothing: it is downloading quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.DOWNLOADING, B.TARGET_ALL),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "activating",
        facts(new(part=part(P.ACTIVATING)), old(), offer=offer(NEW, P.ACTIVATING), **runs(OLD)),
        "agent-1 runs quotes/one: it is activating quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.ACTIVATING, B.TARGET_ALL),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "it has reported, and not beaten since",
        facts(new(part=part(P.ACTIVE)), old(), offer=offer(NEW), **runs(OLD), last_seen_at=ago(55)),
        (
            "agent-1 runs quotes/one: it reported quotes/two active at 2026-01-01 02:59:10 UTC; its next"
            " heartbeat has to confirm that."
        ),
        (B.AWAITING_HEARTBEAT, B.TARGET_ALL),
        ((N.HEARTBEAT, -25),),
    ),
    Case(
        "waits for its wave",
        facts(
            new(strategy=WAVES, wave=1, part=part(P.PENDING, 2), waves={1: Wave(4, 1, 0, ago(100))}), old(), **SETTLED
        ),
        (
            "agent-1 runs quotes/one: quotes/two reaches it with wave 3 of 3; wave 2 is under way, 1 of 4 agents"
            " finished."
        ),
        (B.WAITS_FOR_WAVE, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.WAVE_ENDS, 500)),
    ),
    Case(
        "the wave before is done",
        facts(
            new(strategy=WAVES, wave=0, wave_done_at=ago(120), part=part(P.PENDING, 1), waves={0: Wave(1, 1)}),
            old(),
            **SETTLED,
        ),
        "agent-1 runs quotes/one: quotes/two reaches it with wave 2 of 3; wave 1 is done, 1 of 1 agents finished.",
        (B.WAITS_FOR_WAVE, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.WAVE_BEGINS, 180)),
    ),
    Case(
        "its wave is being offered",
        facts(new(strategy=WAVES, wave=1, part=part(P.PENDING, 1)), old(), **SETTLED),
        "agent-1 runs quotes/one: quotes/two is to be offered to it now.",
        (B.OFFER_DUE, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "paused before its wave",
        facts(
            new(
                strategy=WAVES,
                part=part(P.PENDING, 1),
                paused_at=ago(30),
                waves={0: Wave(1, 1)},
                wave_done_at=ago(90),
                said={"pause": Said("bob", ago(30), "looks odd")},
            ),
            old(),
            **SETTLED,
        ),
        "agent-1 runs quotes/one: quotes/two reaches it with wave 2 of 3; wave 1 is done, 1 of 1 agents finished.",
        (B.WAITS_FOR_WAVE, B.PAUSED, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.RESUME, None)),
    ),
    Case(
        "its build is held up",
        facts(new(S.BUILDING, held_up="The job releases.build waits: No space left on device."), old(), **SETTLED),
        "agent-1 runs quotes/one: the bundle of quotes/two is being built.",
        (B.BUILDING, B.HELD_UP, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "waits for approval",
        facts(new(S.PENDING_APPROVAL, consent=CONSENT), old(), **SETTLED),
        "agent-1 runs quotes/one: the deployment of quotes/two waits for approval: 1 of 2 people have approved it.",
        (B.WAITS_FOR_APPROVAL, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.APPROVAL_EXPIRES, 1800)),
    ),
    Case(
        "waits for a freeze window",
        facts(
            new(S.APPROVED, consent=replace(CONSENT, status=ApprovalStatus.APPROVED, given=2)),
            old(),
            freeze=Freeze("the close", ago(-600)),
            **SETTLED,
        ),
        (
            "agent-1 runs quotes/one: the deployment of quotes/two waits for the freeze window to end at"
            " 2026-01-01 03:10:00 UTC: the close."
        ),
        (B.WAITS_FOR_FREEZE, B.RUNS_DESIRED, B.TARGET_ALL, B.FREEZE_WINDOW),
        (BEAT, (N.FREEZE_ENDS, 600), (N.APPROVAL_EXPIRES, 1800)),
    ),
    Case(
        "the freeze is overridden",
        facts(new(S.APPROVED, freeze_override=True), old(), freeze=Freeze("the close", ago(-600)), **SETTLED),
        "agent-1 runs quotes/one: the deployment of quotes/two begins now.",
        (B.OFFER_DUE, B.RUNS_DESIRED, B.TARGET_ALL, B.FREEZE_WINDOW),
        (BEAT, (N.FREEZE_ENDS, 600), (N.OFFER, None)),
    ),
    Case(
        "waits for its pipeline",
        facts(new(S.APPROVED), replace(new(), id=OTHER, bundle="before"), old(), **SETTLED),
        (
            "agent-1 runs quotes/one: the deployment of quotes/two waits until quotes/before (deploying) is"
            " over: a pipeline has one deployment under way at a time."
        ),
        (B.WAITS_FOR_TURN, B.LATE_JOINER, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.TURN, None), (N.OFFER, None)),
    ),
    Case(
        "waits for its turn",
        facts(
            new(S.APPROVED),
            other(status=S.DEPLOYING, is_current=False, target=Target(names_it=False, count=2)),
            old(),
            **SETTLED,
        ),
        (
            "agent-1 runs quotes/one: the deployment of quotes/two waits until trades/first (deploying) is over:"
            " at most 1 may be under way at once."
        ),
        (B.WAITS_FOR_TURN, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.TURN, None)),
    ),
    Case(
        "waits for shared agents",
        facts(
            new(S.APPROVED, max_in_flight=2),
            other(status=S.ROLLING_BACK, is_current=False, target=Target(names_it=False, count=2)),
            old(),
            **SETTLED,
        ),
        (
            "agent-1 runs quotes/one: the deployment of quotes/two waits until trades/first (rolling back) is"
            " over: some of its agents may be in both."
        ),
        (B.WAITS_FOR_TURN, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.TURN, None)),
    ),
    Case(
        "being built",
        facts(new(S.BUILDING), old(), **SETTLED),
        "agent-1 runs quotes/one: the bundle of quotes/two is being built.",
        (B.BUILDING, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "joins one that is under way",
        facts(new(), old(), **SETTLED),
        "agent-1 runs quotes/one: it matches the target of quotes/two, but came after the deployment had begun.",
        (B.LATE_JOINER, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.OFFER, None)),
    ),
    Case(
        "failed, and the wave bears it",
        facts(
            new(
                part=part(P.FAILED), strategy=Strategy(failure_threshold_percent=50), waves={0: Wave(4, 2, 1, ago(60))}
            ),
            old(),
            offer=offer(NEW, P.FAILED),
            **runs(OLD),
            failure=Failure(NEW, ago(20), "exit code 1."),
        ),
        "agent-1 runs quotes/one: it failed to activate quotes/two at 2026-01-01 02:59:40 UTC: exit code 1.",
        (B.FAILED, B.LOCAL_ROLLBACK, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "failed, and ended the deployment",
        facts(
            new(S.FAILED, part=part(P.FAILED), known_bad="threshold: 1 of 2", **BROKEN),
            old(),
            offer=offer(NEW, P.FAILED),
            **runs(OLD, since=15),
            failure=Failure(NEW, ago(20), "exit code 1"),
        ),
        "agent-1 runs quotes/one: it failed to activate quotes/two at 2026-01-01 02:59:40 UTC: exit code 1.",
        (B.FAILED, B.LOCAL_ROLLBACK, B.THRESHOLD, B.TARGET_ALL, B.KNOWN_BAD),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "failed with nothing before",
        facts(
            new(
                S.FAILED,
                part=part(P.FAILED, detail="no disk"),
                reason="timeout",
                detail="1 of 1 agents of wave 1 failed",
            ),
            offer=offer(NEW, P.FAILED),
            running_since=ago(20),
        ),
        "agent-1 runs nothing: it failed to activate quotes/two: no disk.",
        (B.FAILED, B.DRIFTED, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "done too late",
        facts(
            new(S.FAILED, part=part(P.FAILED, detail="did not finish within 600 s"), reason="timeout", detail="1 of 1"),
            offer=offer(NEW, P.FAILED),
            **runs(NEW, since=5),
        ),
        "agent-1 runs quotes/two: it failed to activate quotes/two: did not finish within 600 s.",
        (B.FAILED, B.RUNS_DESIRED, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "it has to go back",
        facts(
            new(
                S.ROLLING_BACK,
                part=part(P.OFFERED, action="rollback"),
                known_bad="rolled back",
                said=ROLLED,
                rollback_reason="drops records",
            ),
            old(),
            offer=offer(NEW, P.OFFERED, source=OLD),
            **runs(NEW),
        ),
        (
            "agent-1 runs quotes/two: it has to go back to quotes/one: quotes/two is rolled back by bob at"
            " 2026-01-01 02:59:20 UTC: drops records."
        ),
        (B.ROLLING_BACK, B.NOT_FETCHED, B.TARGET_ALL, B.KNOWN_BAD),
        (BEAT, (N.TIMES_OUT, 540)),
    ),
    Case(
        "it went back",
        facts(
            new(S.ROLLED_BACK, part=part(P.ROLLED_BACK, action="rollback"), rollback_reason=BROKEN["detail"], **BROKEN),
            old(),
            offer=offer(NEW, P.ROLLED_BACK, source=OLD),
            **runs(OLD, since=30),
            failure=Failure(NEW, ago(50), "exit code 1"),
        ),
        "agent-1 went back to quotes/one: quotes/two was rolled back: 1 of 2 agents of wave 1 failed.",
        (B.ROLLED_BACK, B.FAILED, B.RUNS_DESIRED, B.THRESHOLD, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "it could not go back",
        facts(
            new(
                S.FAILED,
                part=part(P.FAILED, action="rollback"),
                reason="rollback_failed",
                detail="1 agent",
                said=ROLLED,
            ),
            old(),
            offer=offer(NEW, P.FAILED, source=OLD),
            **runs(NEW),
            failure=Failure(NEW, ago(5), "no disk"),
        ),
        "agent-1 runs quotes/two: it failed to go back to quotes/one at 2026-01-01 02:59:55 UTC: no disk.",
        (B.ROLLBACK_FAILED, B.LOCAL_ROLLBACK, B.ROLLING_BACK, B.DEPLOYMENT_FAILED, B.TARGET_ALL),
        (BEAT, (N.RETRY, None)),
    ),
    Case(
        "drifted",
        facts(new(S.FAILED), old(), offer=offer(since=7300), **runs(NEW, since=500)),
        "agent-1 should run quotes/one, but runs quotes/two since 2026-01-01 02:51:40 UTC.",
        (B.DRIFTED, B.TARGET_ALL),
        (BEAT, (N.TOLD_AGAIN, None)),
    ),
    Case(
        "runs nothing",
        facts(old(), offer=offer(since=7300), running_since=ago(500)),
        "agent-1 should run quotes/one, but runs nothing since 2026-01-01 02:51:40 UTC.",
        (B.DRIFTED, B.TARGET_ALL),
        (BEAT, (N.TOLD_AGAIN, None)),
    ),
    Case(
        "runs what nobody here knows",
        facts(old(), offer=offer(since=7300), running=Running(None, "sha256:" + "f" * 64), running_since=ago(9)),
        (
            "agent-1 should run quotes/one, but runs a bundle that is not known here (sha256:ffffffffff…) since"
            " 2026-01-01 02:59:51 UTC."
        ),
        (B.DRIFTED, B.TARGET_ALL),
        (BEAT, (N.TOLD_AGAIN, None)),
    ),
    Case(
        "a late joiner",
        facts(old(part=part(P.ACTIVE, counted=False, offered=60)), **SETTLED),
        "agent-1 runs quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.LATE_JOINER),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "not counted",
        facts(new(part=part(P.DOWNLOADING, counted=False)), old(), offer=offer(NEW, P.DOWNLOADING), **runs(OLD)),
        "agent-1 runs quotes/one: it is downloading quotes/two, which it was offered at 2026-01-01 02:59:00 UTC.",
        (B.DOWNLOADING, B.TARGET_ALL, B.NOT_COUNTED),
        (BEAT, (N.REPORT, None)),
    ),
    Case(
        "break-glass",
        facts(
            new(S.ACTIVE, is_current=True, part=part(P.ACTIVE), break_glass=GLASS, consent=CONSENT),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 runs quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.BREAK_GLASS),
        (BEAT, (N.RATIFICATION_DUE, 900)),
    ),
    Case(
        "break-glass, approved since",
        facts(
            new(
                S.ACTIVE,
                is_current=True,
                part=part(P.ACTIVE),
                break_glass=GLASS,
                consent=replace(CONSENT, status=ApprovalStatus.APPROVED),
            ),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 runs quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.BREAK_GLASS),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "retried",
        facts(
            new(
                part=part(P.OFFERED, 1, offered=20),
                strategy=WAVES,
                wave=1,
                waves={1: Wave(2, 1, 0, ago(20))},
                said={"retry": Said("bob", ago(20), "disk replaced")},
            ),
            old(),
            offer=offer(NEW, P.OFFERED, since=20),
            **runs(OLD),
            failure=Failure(NEW, ago(90), "no disk"),
        ),
        "agent-1 runs quotes/one: it was offered quotes/two at 2026-01-01 02:59:40 UTC and has not begun to fetch it.",
        (B.NOT_FETCHED, B.TARGET_ALL, B.WAVE, B.RETRIED),
        (BEAT, (N.TIMES_OUT, 580)),
    ),
    Case(
        "the deployment was aborted before its turn",
        facts(
            new(
                S.FAILED,
                part=part(P.PENDING, 1),
                reason="aborted",
                detail="wrong bundle",
                said={"abort": Said("bob", ago(30), "wrong bundle")},
            ),
            old(),
            **SETTLED,
        ),
        (
            "agent-1 runs quotes/one: quotes/two was to reach it, but ended before (aborted by bob at 2026-01-01"
            " 02:59:30 UTC: wrong bundle)."
        ),
        (B.ENDED_BEFORE, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "aborted, and it runs on",
        facts(
            new(S.FAILED, part=part(P.ACTIVE), reason="aborted", said={"abort": Said("bob", ago(30))}),
            old(),
            offer=offer(NEW),
            **runs(NEW),
        ),
        "agent-1 runs quotes/two, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.DEPLOYMENT_FAILED, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "spared by the threshold",
        facts(new(S.ROLLED_BACK, part=part(P.PENDING, 1), known_bad="threshold: 1 of 2", **BROKEN), old(), **SETTLED),
        (
            "agent-1 runs quotes/one: quotes/two was to reach it, but ended before (threshold: 1 of 2 agents of"
            " wave 1 failed)."
        ),
        (B.ENDED_BEFORE, B.KNOWN_BAD, B.RUNS_DESIRED, B.TARGET_ALL),
        (BEAT, (N.NOTHING, None)),
    ),
    Case(
        "offline, with nothing to do",
        facts(old(), **SETTLED, **SILENT),
        "agent-1 runs quotes/one, as it should, since 2026-01-01 02:00:00 UTC.",
        (B.RUNS_DESIRED, B.TARGET_ALL, B.OFFLINE),
        ((N.COMES_BACK, None),),
    ),
    Case(
        "never heard of",
        facts(last_seen_at=None),
        "agent-1 runs nothing: nothing is deployed in its environment.",
        (B.NEVER_OFFERED,),
        ((N.HEARTBEAT, -89970), (N.NOTHING, None)),
    ),
    Case(
        "decommissioned",
        facts(old(), **SETTLED, decommissioned_at=ago(60)),
        "agent-1 left the fleet at 2026-01-01 02:59:00 UTC; nothing is offered to it any more.",
        (B.DECOMMISSIONED,),
        (),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_explained(case: Case) -> None:
    told = explain(case.facts)

    assert told.summary == case.summary
    assert tuple(finding.code for finding in told.because) == case.because
    assert tuple((event.code, event.at and (event.at - NOW).total_seconds()) for event in told.next) == case.next


def test_the_table_has_every_code() -> None:
    """A code that no case yields is one that nobody has seen."""
    assert {code for case in CASES for code in case.because} == set(B)
    assert {code for case in CASES for code, _ in case.next} == set(N)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_sentence_is_one(case: Case) -> None:
    told = explain(case.facts)

    for sentence in (told.summary, *(each.detail for each in told.because), *(each.detail for each in told.next)):
        assert sentence == sentence.strip()
        assert sentence.endswith(".")
        assert not sentence.endswith("..")
        assert "None" not in sentence
        assert "_" not in sentence
    times = [event.at for event in told.next if event.at is not None]
    assert times == sorted(times)
    assert [event.at for event in told.next[len(times) :]] == [None] * (len(told.next) - len(times))


@pytest.mark.parametrize("progress", [P.OFFERED, P.DOWNLOADING, P.ACTIVATING])
def test_the_time_out_is_the_planner_s(progress: AgentProgress) -> None:
    view = AgentView(ME, 0, True, progress, ago(100))
    until = times_out_at(view, 600)
    assert until is not None

    def given_up(at: datetime) -> bool:
        plan = plan_rollout(Strategy(), [view], wave=0, wave_done_at=None, paused=False, timeout_s=600, now=at)
        return plan.timed_out == (ME,)

    assert given_up(until)
    assert not given_up(until - timedelta(microseconds=1))


@pytest.mark.parametrize(
    "view",
    [
        AgentView(ME, 0, True, P.ACTIVE, ago(9000)),
        AgentView(ME, 0, False, P.DOWNLOADING, ago(9000)),
        AgentView(ME, 0, True, P.PENDING),
    ],
    ids=["done", "not counted", "not offered"],
)
def test_nobody_gives_up_whom_the_planner_does_not(view: AgentView) -> None:
    plan = plan_rollout(Strategy(), [view], wave=0, wave_done_at=None, paused=True, timeout_s=600, now=NOW)

    assert plan.timed_out == ()
    assert times_out_at(view, 600) is None


def test_the_pause_ends_as_the_planner_says() -> None:
    agents = [AgentView(ME, 0, True, P.ACTIVE, ago(500)), AgentView(OTHER, 1, True, P.PENDING)]
    ends = pause_ends_at(WAVES, ago(100))
    assert ends is not None
    assert pause_ends_at(WAVES, None) is None

    def wave(at: datetime) -> int:
        return plan_rollout(WAVES, agents, wave=0, wave_done_at=ago(100), paused=False, timeout_s=600, now=at).wave

    assert (wave(ends - timedelta(microseconds=1)), wave(ends)) == (0, 1)


def test_findings_name_what_they_are_about() -> None:
    waiting = explain(facts(new(S.PENDING_APPROVAL, consent=CONSENT), old(), **SETTLED)).because[0]
    bad = explain(facts(old(part=None, known_bad="it failed", config_hash="sha256:1"))).because[1]
    by_itself = explain(facts(new(part=part(P.FAILED)), old(), offer=offer(NEW, P.FAILED), **runs(OLD))).because[1]

    assert (waiting.deployment_id, waiting.approval_id) == (NEW, APPROVAL)
    assert (bad.deployment_id, bad.config_hash) == (OLD, "sha256:1")
    assert (by_itself.code, by_itself.deployment_id) == (B.LOCAL_ROLLBACK, OLD)


@pytest.mark.parametrize(("silent_s", "word"), [(29, "due"), (30, "due"), (31, "overdue")])
def test_a_heartbeat_is_due_or_overdue(silent_s: int, word: str) -> None:
    told = explain(facts(old(), **SETTLED, last_seen_at=ago(silent_s)))

    assert (told.next[0].code, told.next[0].detail) == (N.HEARTBEAT, f"Its next heartbeat is {word}.")


def test_an_older_deployment_that_ended_says_nothing() -> None:
    """Only what came after the offer that holds."""
    ended = replace(new(S.FAILED, part=part(P.PENDING, 1), reason="aborted"), id=UUID(int=1))

    codes = [finding.code for finding in explain(facts(old(), ended, **SETTLED)).because]

    assert codes == [B.RUNS_DESIRED, B.TARGET_ALL]


def test_a_restored_deployment_that_never_had_the_agent_is_not_offered_to_it_again() -> None:
    told = explain(
        facts(
            new(S.ROLLED_BACK, part=part(P.ROLLED_BACK, action="rollback")),
            old(part=None),
            offer=offer(NEW, P.ROLLED_BACK, source=OLD),
            **runs(OLD),
        )
    )

    assert [finding.code for finding in told.because] == [B.ROLLED_BACK, B.RUNS_DESIRED, B.TARGET_ALL]
