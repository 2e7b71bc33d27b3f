"""The rollout planner, which decides the next step of a deployment from its current state."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Self
from uuid import UUID

from byteor.engine.machines import FINISHED, AgentProgress

# The maximum number of agents that one step (one transaction) enlists or makes offers to. The step that completes the
# deployment makes all remaining offers. The limit makes the first offers visible early.
AGENTS_PER_STEP = 5_000


class StrategyKind(StrEnum):
    """How a deployment reaches the agents of its target."""

    ALL_AT_ONCE = "all_at_once"
    WAVES = "waves"


class Hold(StrEnum):
    """What must happen before a wave starts, when the wave before it has finished."""

    MANUAL = "manual"  # somebody starts the wave with ``next-wave``
    APPROVAL = "approval"  # people approve what the earlier waves did


@dataclass(frozen=True, slots=True)
class Strategy:
    """A rollout strategy. ``percents`` are the cumulative shares of the agents after each wave; the last is 100.

    ``holds`` has an entry for each wave, or none if no wave has a hold.
    """

    kind: StrategyKind
    percents: tuple[int, ...] = (100,)
    pause_s: int = 0
    failure_threshold_percent: int = 0
    auto_rollback: bool = False
    holds: tuple[Hold | None, ...] = ()

    @classmethod
    def all_at_once(cls, *, failure_threshold_percent: int = 0, auto_rollback: bool = False) -> Self:
        """Return a strategy of one wave. By default a failed deployment is not rolled back."""
        return cls(StrategyKind.ALL_AT_ONCE, (100,), 0, failure_threshold_percent, auto_rollback)

    @classmethod
    def waves(
        cls,
        percents: Sequence[int] = (5, 25, 100),
        *,
        pause_s: int = 0,
        failure_threshold_percent: int = 0,
        auto_rollback: bool = True,
        holds: Sequence[str | None] = (),
    ) -> Self:
        """Return a strategy with these waves. By default a failed deployment is rolled back."""
        found = _parse_holds(holds)
        return cls(StrategyKind.WAVES, tuple(percents), pause_s, failure_threshold_percent, auto_rollback, found)

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data. Older rows may lack keys that have a default."""
        return cls(
            StrategyKind(stored["kind"]),
            tuple(stored.get("percents", (100,))),
            stored.get("pause_s", 0),
            stored.get("failure_threshold_percent", 0),
            stored.get("auto_rollback", False),
            _parse_holds(stored.get("holds", ())),
        )

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store. The keys are in the order of PostgreSQL's jsonb, as in the API."""
        is_waves = self.kind is StrategyKind.WAVES
        waves = {"pause_s": self.pause_s, "percents": list(self.percents)} if is_waves else {}
        holds = self.holds or (None,) * len(self.percents)
        return {
            "kind": self.kind.value,
            **({"holds": list(holds)} if is_waves else {}),
            **waves,
            "auto_rollback": self.auto_rollback,
            "failure_threshold_percent": self.failure_threshold_percent,
        }

    def wave_bounds(self, count: int) -> tuple[int, ...]:
        """Return for each wave how many of ``count`` agents are in it and in the waves before it."""
        return tuple(math.ceil(count * percent / 100) for percent in self.percents)

    def find_hold(self, after: int, wave: int) -> Hold | None:
        """Return the hold before ``wave``, or None.

        The waves between ``after`` and ``wave`` are skipped, so their holds also apply to ``wave``. An approval hold
        takes precedence over a manual hold.
        """
        between = set(self.holds[after + 1 : wave + 1])
        return next((hold for hold in (Hold.APPROVAL, Hold.MANUAL) if hold in between), None)

    @property
    def needs_approval(self) -> bool:
        """Whether any wave needs an approval."""
        return Hold.APPROVAL in self.holds


def _parse_holds(holds: Sequence[str | None]) -> tuple[Hold | None, ...]:
    """Return the holds, or an empty tuple if all of them are None, so that equal strategies compare equal."""
    return tuple(None if hold is None else Hold(hold) for hold in holds) if any(holds) else ()


@dataclass(frozen=True, slots=True)
class EnlistmentCursor:
    """The cursor of an enlistment. In the order of ids, ``place`` of the ``count`` agents are already enlisted.

    ``after`` is the id of the last enlisted agent, and ``until`` the highest id that the target matched at the start.
    With ``everybody_counts``, offline agents also count toward waves and thresholds.
    """

    place: int
    count: int
    after: str | None
    until: str
    everybody_counts: bool

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Read the stored JSON data."""
        return cls(stored["place"], stored["count"], stored["after"], stored["until"], stored["everybody_counts"])

    def stored(self) -> dict[str, Any]:
        """Return the JSON data to store."""
        return {
            "after": self.after,
            "count": self.count,
            "place": self.place,
            "until": self.until,
            "everybody_counts": self.everybody_counts,
        }


class RolloutAgent(NamedTuple):
    """The planner's view of one agent. It is a named tuple, because a step may create 100,000 of them."""

    id: UUID
    wave: int
    counted: bool
    progress: AgentProgress
    offered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The effects of a step: the agents ``timed_out`` fail, the agents in ``offer`` receive offers, and the deployment
    reaches its ``outcome``, if any.

    In a rollout, ``wave`` is the last wave that has started when the step is done. ``has_more_offers`` means that
    offers remain, so that the next step can follow immediately. ``hold`` is the hold before the wave ``held_wave``,
    which is the next to start.
    """

    timed_out: tuple[UUID, ...] = ()
    offer: tuple[UUID, ...] = ()
    has_more_offers: bool = False
    wave: int = 0
    wave_done: bool = False
    hold: Hold | None = None
    held_wave: int = 0
    outcome: Literal["active", "failed"] | None = None
    reason: Literal["", "threshold", "timeout", "empty_target", "rollback_failed"] = ""
    detail: str = ""


def plan_rollout(
    strategy: Strategy,
    agents: Sequence[RolloutAgent],
    *,
    wave: int,
    wave_done_at: datetime | None,
    paused: bool,
    complete: bool = True,
    unavailable: Collection[int] = (),
    released: int = 0,
    is_started: bool = False,
    timeout_s: int,
    now: datetime,
) -> StepPlan:
    """Plan the next step of a ``deploying`` deployment, whose waves up to ``wave`` have started.

    No wave is done before all agents are enlisted (``complete``). Pending agents that cannot get the offer now, such as
    drained agents, are not in ``agents``. Nothing waits for them, but the holds of their waves apply: ``unavailable``
    contains these waves, and may contain those of other pending agents. If ``released`` is the next wave, no hold
    applies to it, because it was approved. If somebody starts the next wave now (``is_started``), it does not wait for
    a manual hold or for the strategy's pause between waves.
    """
    if complete and not any(a.counted for a in agents):
        # If no counted agents remain, fail the deployment, because nothing would show whether it succeeds.
        return StepPlan(wave=wave, outcome="failed", reason="empty_target", detail="no counted agents remain")
    late = _find_timed_out(agents, timeout_s, now)
    in_wave = [a for a in agents if a.counted and a.wave == wave]
    reported = sum(a.progress is AgentProgress.FAILED for a in in_wave)
    failed = reported + sum(a.id in late for a in in_wave)
    timed_out = tuple(late)
    tolerated = strategy.failure_threshold_percent * len(in_wave)
    # The failed share of a wave is only known when all agents of the wave are enlisted.
    is_whole = complete or any(a.wave > wave for a in agents)
    if is_whole and failed * 100 > tolerated:
        reason: Literal["threshold", "timeout"] = "threshold" if reported * 100 > tolerated else "timeout"
        plural = "" if len(in_wave) == 1 else "s"
        detail = f"{failed} of {len(in_wave)} agent{plural} of wave {wave + 1} failed"
        if failed > reported:
            count = failed - reported
            late_agents = f"{count} agent{'' if count == 1 else 's'}"
            detail += f"; most recently, {late_agents} did not finish within {timeout_s} s"
        return StepPlan(timed_out=timed_out, wave=wave, outcome="failed", reason=reason, detail=detail)
    waiting = [a.id for a in agents if a.wave <= wave and a.progress is AgentProgress.PENDING]
    if not complete or not all(a.progress in FINISHED or a.id in late for a in agents if a.counted and a.wave <= wave):
        return _plan_offers([] if paused else waiting, timed_out=timed_out, wave=wave)
    following = min((a.wave for a in agents if a.wave > wave), default=None)
    if following is None:
        # An unavailable agent can become available later. By then, the holds up to its wave must be over.
        following = min((each for each in unavailable if each > wave and strategy.find_hold(wave, each)), default=None)
    if following is None:
        return StepPlan(timed_out=timed_out, offer=tuple(waiting), wave=wave, wave_done=True, outcome="active")
    hold = None if released == following else strategy.find_hold(wave, following)
    if hold is Hold.APPROVAL or (hold is Hold.MANUAL and not is_started):
        return StepPlan(timed_out=timed_out, wave=wave, wave_done=True, hold=hold, held_wave=following)
    is_waiting = not is_started and (
        (wave_done_at is None and strategy.pause_s > 0)
        or (wave_done_at is not None and now < wave_done_at + timedelta(seconds=strategy.pause_s))
    )
    if paused or is_waiting:
        return StepPlan(timed_out=timed_out, wave=wave, wave_done=True)
    offer = [a.id for a in agents if a.wave <= following and a.progress is AgentProgress.PENDING]
    return _plan_offers(offer, timed_out=timed_out, wave=following)


def _plan_offers(waiting: Sequence[UUID], *, timed_out: tuple[UUID, ...], wave: int) -> StepPlan:
    now, has_more = tuple(waiting[:AGENTS_PER_STEP]), len(waiting) > AGENTS_PER_STEP
    return StepPlan(timed_out=timed_out, offer=now, has_more_offers=has_more, wave=wave)


def plan_rollback(agents: Sequence[RolloutAgent], *, timeout_s: int, now: datetime) -> StepPlan:
    """Plan the next step of a ``rolling_back`` deployment. Every touched agent already has its rollback offer.

    The outcome ``active`` means that the rollback succeeded.
    """
    late = _find_timed_out(agents, timeout_s, now)
    timed_out = tuple(late)
    if any(a.counted and a.progress not in FINISHED and a.id not in late for a in agents):
        return StepPlan(timed_out=timed_out)
    failed = sorted(a.id for a in agents if a.counted and (a.progress is AgentProgress.FAILED or a.id in late))
    if failed:
        names = ", ".join(str(agent_id) for agent_id in failed[:20])
        detail = f"{len(failed)} agent{'' if len(failed) == 1 else 's'} did not roll back: {names}"
        detail += ", …" if len(failed) > 20 else ""
        return StepPlan(timed_out=timed_out, outcome="failed", reason="rollback_failed", detail=detail)
    return StepPlan(timed_out=timed_out, outcome="active")


def _find_timed_out(agents: Sequence[RolloutAgent], timeout_s: int, now: datetime) -> dict[UUID, None]:
    """Return the ids of the counted agents that did not finish in time, in the order of ``agents``."""
    deadline = now - timedelta(seconds=timeout_s)
    return {
        a.id: None
        for a in agents
        if a.counted and a.progress not in FINISHED and a.offered_at is not None and a.offered_at <= deadline
    }
