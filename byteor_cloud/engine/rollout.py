"""The rollout planner: where a deployment stands, to what should be done now. Pure; the worker carries it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from byteor_cloud.engine.machines import AgentProgress

type Id = UUID
_DONE = {AgentProgress.ACTIVE, AgentProgress.FAILED, AgentProgress.ROLLED_BACK}


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a target is reached: ``percents`` are the cumulative shares of the waves, the last 100."""

    percents: tuple[int, ...] = (100,)
    pause_s: int = 0
    failure_threshold_percent: int = 0

    def wave_of(self, position: int, count: int) -> int:
        """The wave of the agent at ``position`` of ``count``."""
        bounds = (math.ceil(count * percent / 100) for percent in self.percents)
        return next(wave for wave, bound in enumerate(bounds) if position < bound)


@dataclass(frozen=True, slots=True)
class AgentView:
    """What the planner knows of one agent of the deployment."""

    id: Id
    wave: int
    counted: bool
    progress: AgentProgress
    offered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order: give up on ``timed_out``, offer to ``offer`` in ``wave``, then ``outcome``."""

    timed_out: tuple[Id, ...] = ()
    offer: tuple[Id, ...] = ()
    wave: int = 0
    wave_done: bool = False
    outcome: Literal["active", "failed"] | None = None
    reason: Literal["", "threshold", "timeout", "rollback_failed"] = ""
    detail: str = ""


def plan_rollout(
    strategy: Strategy,
    agents: Sequence[AgentView],
    *,
    wave: int,
    wave_done_at: datetime | None,
    paused: bool,
    timeout_s: int,
    now: datetime,
) -> Plan:
    """One step of a deployment that is ``deploying``: its waves up to ``wave`` were offered."""
    late = _late(agents, timeout_s, now)
    settled = {a.id: AgentProgress.FAILED if a.id in late else a.progress for a in agents}
    in_wave = [a for a in agents if a.counted and a.wave == wave]
    reached = [a for a in agents if a.counted and a.wave <= wave]
    failed = sum(settled[a.id] is AgentProgress.FAILED for a in in_wave)
    reported = sum(a.progress is AgentProgress.FAILED for a in in_wave)
    timed_out = tuple(a.id for a in agents if a.id in late)
    bearable = strategy.failure_threshold_percent * len(in_wave)
    if failed * 100 > bearable:
        reason: Literal["threshold", "timeout"] = "threshold" if reported * 100 > bearable else "timeout"
        detail = f"{failed} of {len(in_wave)} agents of wave {wave + 1} failed"
        if failed > reported:
            detail += f", {failed - reported} of them by not finishing within {timeout_s} s"
        return Plan(timed_out=timed_out, wave=wave, outcome="failed", reason=reason, detail=detail)
    waiting = tuple(a.id for a in agents if a.wave <= wave and settled[a.id] is AgentProgress.PENDING)
    if not all(settled[a.id] in _DONE for a in reached):
        return Plan(timed_out=timed_out, offer=() if paused else waiting, wave=wave)
    last = max((a.wave for a in agents), default=0)
    if wave >= last:
        return Plan(timed_out=timed_out, offer=waiting, wave=wave, wave_done=True, outcome="active")
    if paused or (wave_done_at is None and strategy.pause_s > 0):
        return Plan(timed_out=timed_out, wave=wave, wave_done=True)
    if wave_done_at is not None and now < wave_done_at + timedelta(seconds=strategy.pause_s):
        return Plan(timed_out=timed_out, wave=wave, wave_done=True)
    following = min(a.wave for a in agents if a.wave > wave)
    offer = tuple(a.id for a in agents if a.wave <= following and settled[a.id] is AgentProgress.PENDING)
    return Plan(timed_out=timed_out, offer=offer, wave=following)


def plan_rollback(agents: Sequence[AgentView], *, timeout_s: int, now: datetime) -> Plan:
    """One step of a deployment that is ``rolling_back``; every touched agent was offered its earlier bundle."""
    late = _late(agents, timeout_s, now)
    open_ones = [a for a in agents if a.progress not in _DONE and a.id not in late and a.counted]
    timed_out = tuple(a.id for a in agents if a.id in late)
    if open_ones:
        return Plan(timed_out=timed_out)
    failed = [a for a in agents if a.counted and (a.progress is AgentProgress.FAILED or a.id in late)]
    if failed:
        names = ", ".join(str(a.id) for a in failed[:20])
        detail = f"did not roll back: {names}"
        return Plan(timed_out=timed_out, outcome="failed", reason="rollback_failed", detail=detail)
    return Plan(timed_out=timed_out, outcome="active")


def _late(agents: Sequence[AgentView], timeout_s: int, now: datetime) -> set[Id]:
    deadline = now - timedelta(seconds=timeout_s)
    return {
        a.id
        for a in agents
        if a.counted and a.progress not in _DONE and a.offered_at is not None and a.offered_at <= deadline
    }
