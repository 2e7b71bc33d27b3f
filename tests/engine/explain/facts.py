"""Builders for the facts of the cases: an agent, two deployments, and a deployment of another pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from byteor.engine.blockers import Blocker, BlockerCode
from byteor.engine.break_glass import BreakGlass
from byteor.engine.explain.facts import (
    ActionFacts,
    AgentFacts,
    ApprovalFacts,
    DeploymentFacts,
    EnlistmentFacts,
    Facts,
    FreezeFacts,
    OfferFacts,
    RunningFacts,
)
from byteor.engine.explain.findings import BecauseCode as B
from byteor.engine.explain.findings import NextCode as N
from byteor.engine.machines import AgentProgress, ApprovalStatus, DeploymentStatus, OfferAction
from byteor.engine.rollout import RolloutAgent, Strategy

P, S = AgentProgress, DeploymentStatus
NOW = datetime(2026, 1, 1, 3, tzinfo=UTC)
ME, OLD, NEW, OTHER, APPROVAL_ID = (UUID(int=number) for number in range(1, 6))
SEEN = NOW - timedelta(seconds=10)
BEAT = (N.HEARTBEAT, 20)
WAVES = Strategy.waves(percents=(5, 25, 100), pause_s=300)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def enlistment(
    progress: AgentProgress, wave: int = 0, *, counted: bool = True, offered: float | None = 60, **more: Any
) -> EnlistmentFacts:
    at = None if progress is P.PENDING or offered is None else ago(offered)
    return EnlistmentFacts(RolloutAgent(ME, wave, counted, progress, at), updated_at=ago(50), **more)


def old(**more: Any) -> DeploymentFacts:
    """Return the older deployment, by default the current one."""
    given = {
        "status": S.ACTIVE,
        "is_current": True,
        "activated_at": ago(7200),
        "enlistment": enlistment(P.ACTIVE, offered=7300),
    }
    return DeploymentFacts(OLD, "quotes", "one", **{**given, **more})


def new(status: DeploymentStatus = S.DEPLOYING, **more: Any) -> DeploymentFacts:
    """Return the deployment that follows ``old``."""
    return DeploymentFacts(NEW, "quotes", "two", status, config_hash="sha256:2", **more)


def other(**more: Any) -> DeploymentFacts:
    """Return a deployment of another pipeline."""
    given = {"status": S.ACTIVE, "is_current": True, **more}
    return DeploymentFacts(OTHER, "trades", "first", **given)


def offer(
    of: UUID = OLD, progress: AgentProgress = P.ACTIVE, *, source: UUID | None = None, since: float = 60
) -> OfferFacts:
    action = OfferAction.ACTIVATE if source is None else OfferAction.ROLLBACK
    source = source or of
    return OfferFacts(of, source, action, f"sha256:{source.int}", ago(since), progress)


def runs(of: UUID, *, since: float = 3600) -> dict[str, Any]:
    return {"running": RunningFacts(of, f"sha256:{of.int}"), "running_since": ago(since)}


def facts(*deployments: DeploymentFacts, freeze: FreezeFacts | None = None, **agent: Any) -> Facts:
    known = {"last_seen_at": SEEN, "labels": {"zone": "a"}, **agent}
    return Facts(NOW, AgentFacts(ME, "agent-1", ago(90000), **known), deployments=deployments, freeze=freeze)


@dataclass(frozen=True)
class Case:
    name: str
    facts: Facts
    summary: str
    because: tuple[B, ...]
    next: tuple[tuple[N, float | None], ...]  # the times are in seconds from NOW


SETTLED = {"offer": offer(since=7300), **runs(OLD)}
# The beginning of the summary of a SETTLED agent.
AS_IT_SHOULD = "agent-1 has run quotes/one, as it should, since 2026-01-01 02:00:00 UTC. "
SILENT: dict[str, Any] = {"liveness": "offline", "last_seen_at": ago(4000)}
APPROVAL = ApprovalFacts(APPROVAL_ID, ApprovalStatus.PENDING, 1, 2, ago(-1800))
GLASS = BreakGlass("alice", "the market opens", str(UUID(int=9)), ago(-900))
BROKEN = {"reason": "threshold", "detail": "1 of 2 agents of wave 1 failed"}
ROLLED = {"roll_back": ActionFacts("bob", ago(40), "drops records")}
FROZEN = Blocker(BlockerCode.FREEZE_WINDOW, "A freeze window is open.", ago(-600))
FULL = Blocker(BlockerCode.IN_FLIGHT_LIMIT, "At most 1 may be in flight.", ids=(OTHER,))
