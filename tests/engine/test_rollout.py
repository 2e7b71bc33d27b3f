"""Tests of the planner of rollouts (waves, thresholds, pauses, holds and timeouts) and of rollbacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.machines import AgentProgress
from byteor.engine.rollout import Hold, RolloutAgent, StepPlan, Strategy, plan_rollback, plan_rollout

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT_S = 600
P = AgentProgress
ONE, TWO, THREE, FOUR = (UUID(int=number) for number in range(1, 5))


def agent(
    number: UUID, progress: AgentProgress, wave: int = 0, *, counted: bool = True, age_s: int = 0
) -> RolloutAgent:
    offered = None if progress is P.PENDING else NOW - timedelta(seconds=age_s)
    return RolloutAgent(number, wave, counted, progress, offered)


def plan(agents: Sequence[RolloutAgent], strategy: Strategy | None = None, **state: Any) -> StepPlan:
    given_state: dict[str, Any] = {"wave": 0, "wave_done_at": None, "paused": False, **state}
    return plan_rollout(strategy or Strategy.all_at_once(), agents, timeout_s=TIMEOUT_S, now=NOW, **given_state)


def test_rollout_waits_for_activating_agent() -> None:
    assert plan([agent(ONE, P.ACTIVE), agent(TWO, P.ACTIVATING)]) == StepPlan()


def test_rollout_completes_when_all_agents_are_active() -> None:
    assert plan([agent(ONE, P.ACTIVE), agent(TWO, P.ACTIVE)]) == StepPlan(wave_done=True, outcome="active")


@pytest.mark.parametrize(
    ("threshold", "failed", "outcome"),
    [(0, 0, "active"), (0, 1, "failed"), (25, 1, "active"), (24, 1, "failed"), (49, 2, "failed"), (50, 2, "active"),
     (100, 4, "active"), (99, 4, "failed")],
)  # fmt: skip
def test_failed_agents_fail_rollout_only_above_wave_threshold(threshold: int, failed: int, outcome: str) -> None:
    agents = [
        agent(number, P.FAILED if place < failed else P.ACTIVE) for place, number in enumerate((ONE, TWO, THREE, FOUR))
    ]

    made = plan(agents, Strategy.all_at_once(failure_threshold_percent=threshold))

    assert made.outcome == outcome
    assert made.reason == ("threshold" if outcome == "failed" else "")


def test_failures_above_threshold_fail_rollout_before_other_agents_finish() -> None:
    made = plan([agent(ONE, P.FAILED), agent(TWO, P.OFFERED), agent(THREE, P.PENDING, 1)], Strategy.waves((50, 100)))

    assert (made.outcome, made.offer, made.detail) == ("failed", (), "1 of 2 agents of wave 1 failed")


def test_agents_that_time_out_count_as_failed() -> None:
    made = plan([agent(ONE, P.ACTIVE), agent(TWO, P.DOWNLOADING, age_s=TIMEOUT_S)])

    assert (made.outcome, made.reason, made.timed_out) == ("failed", "timeout", (TWO,))
    assert plan([agent(ONE, P.ACTIVE), agent(TWO, P.DOWNLOADING, age_s=TIMEOUT_S - 1)]) == StepPlan()


def test_failure_reason_is_threshold_if_reported_failures_alone_exceed_threshold() -> None:
    made = plan([agent(ONE, P.FAILED), agent(TWO, P.OFFERED, age_s=TIMEOUT_S)])

    assert (made.reason, made.timed_out) == ("threshold", (TWO,))


def test_wave_completes_when_timeouts_are_within_threshold() -> None:
    made = plan(
        [agent(ONE, P.ACTIVE), agent(TWO, P.OFFERED, age_s=TIMEOUT_S)],
        Strategy.all_at_once(failure_threshold_percent=50),
    )

    assert (made.outcome, made.timed_out) == ("active", (TWO,))


def test_uncounted_agents_neither_delay_rollout_nor_count_as_failed_or_timed_out() -> None:
    away = agent(TWO, P.OFFERED, counted=False, age_s=10 * TIMEOUT_S)

    assert plan([agent(ONE, P.ACTIVE), away]) == StepPlan(wave_done=True, outcome="active")
    assert plan([agent(ONE, P.ACTIVE), agent(TWO, P.FAILED, counted=False)]).outcome == "active"


def test_threshold_applies_only_after_whole_wave_is_enlisted() -> None:
    known = [agent(ONE, P.FAILED), agent(TWO, P.ACTIVE)]

    assert plan(known, Strategy.waves((50, 100)), complete=False) == StepPlan()
    assert plan([*known, agent(THREE, P.PENDING, 1)], Strategy.waves((50, 100)), complete=False).outcome == "failed"
    assert plan(known).outcome == "failed"


def test_completely_enlisted_rollout_fails_when_no_counted_agents_remain() -> None:
    expected = StepPlan(outcome="failed", reason="empty_target", detail="no counted agents remain")

    assert plan([]) == expected
    assert plan([agent(TWO, P.ACTIVE, counted=False)], paused=True) == expected
    assert plan([], complete=False) == StepPlan()


def test_next_wave_is_offered_immediately_if_strategy_has_no_pause() -> None:
    made = plan(
        [agent(ONE, P.ACTIVE), agent(TWO, P.PENDING, 1), agent(THREE, P.PENDING, 2)], Strategy.waves((34, 67, 100))
    )

    assert made == StepPlan(offer=(TWO,), wave=1)


def test_empty_waves_are_skipped() -> None:
    assert plan([agent(ONE, P.ACTIVE), agent(TWO, P.PENDING, 3)], Strategy.waves((50, 60, 70, 100))).wave == 3


def test_failures_of_earlier_wave_do_not_count_in_next_wave() -> None:
    agents = [agent(ONE, P.FAILED), agent(TWO, P.ACTIVE), agent(THREE, P.FAILED, 1), agent(FOUR, P.OFFERED, 1)]

    assert plan(agents, Strategy.waves((50, 100), failure_threshold_percent=50), wave=1) == StepPlan(wave=1)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, StepPlan(wave_done=True)),
        ({"wave_done_at": NOW - timedelta(seconds=299)}, StepPlan(wave_done=True)),
        ({"wave_done_at": NOW - timedelta(seconds=300)}, StepPlan(offer=(TWO,), wave=1)),
        ({"wave_done_at": NOW - timedelta(seconds=300), "paused": True}, StepPlan(wave_done=True)),
    ],
)
def test_next_wave_is_offered_only_after_strategy_pause_and_if_rollout_is_not_paused(
    state: dict[str, Any], expected: StepPlan
) -> None:
    agents = [agent(ONE, P.ACTIVE), agent(TWO, P.PENDING, 1)]

    assert plan(agents, Strategy.waves((50, 100), pause_s=300), **state) == expected


def test_paused_rollout_does_not_start_next_wave_but_can_complete_or_fail() -> None:
    agents = [agent(ONE, P.ACTIVE), agent(TWO, P.PENDING, 1)]

    assert plan(agents, Strategy.waves((50, 100)), paused=True) == StepPlan(wave_done=True)
    assert plan(agents[:1], paused=True).outcome == "active"
    assert plan([agent(ONE, P.FAILED)], paused=True).outcome == "failed"


HELD = Strategy.waves((25, 50, 75, 100), holds=(None, "manual", "approval", None), pause_s=300)
FIRST, LAST = agent(ONE, P.ACTIVE), agent(TWO, P.PENDING, 3)


@pytest.mark.parametrize(
    ("wave", "state", "expected"),
    [
        (1, {}, Hold.MANUAL),
        (1, {"paused": True, "wave_done_at": NOW}, Hold.MANUAL),
        (1, {"wave_done_at": NOW - timedelta(days=9)}, Hold.MANUAL),  # the end of the pause does not end a hold
        (1, {"is_started": True}, None),  # a wave that somebody starts does not wait for the pause
        (1, {"is_started": True, "wave_done_at": NOW}, None),
        (1, {"released": 2, "is_started": False}, Hold.MANUAL),  # an approval of a later wave is not for this wave
        (2, {"is_started": True}, Hold.APPROVAL),  # the second wave is empty, and its manual hold is weaker
        (2, {"released": 1, "is_started": True}, Hold.APPROVAL),
        (2, {"released": 2, "is_started": True}, None),
        (2, {"released": 2, "wave_done_at": NOW - timedelta(seconds=300)}, None),
        (3, {"is_started": True}, Hold.APPROVAL),  # the second and third waves are empty, but their holds apply
        (3, {"released": 2, "wave_done_at": NOW - timedelta(seconds=300)}, Hold.APPROVAL),  # another wave was approved
        (3, {"wave": 1, "is_started": True}, Hold.APPROVAL),
        (3, {"wave": 2, "is_started": True}, None),
    ],
)  # fmt: skip
def test_next_wave_waits_for_strongest_hold_of_itself_and_empty_waves_before_it(
    wave: int, state: dict[str, Any], expected: Hold | None
) -> None:
    """``wave`` is the next wave that has agents, counted from 0."""
    current = state.get("wave", 0)
    made = plan([agent(ONE, P.ACTIVE, current), agent(TWO, P.PENDING, wave)], HELD, **state)

    if expected is None:
        assert made == StepPlan(offer=(TWO,), wave=wave)
    else:
        assert made == StepPlan(wave=current, wave_done=True, hold=expected, held_wave=wave)


@pytest.mark.parametrize("wave_done_at", [None, NOW, NOW - timedelta(seconds=299)])
def test_approved_wave_waits_for_end_of_pause(wave_done_at: datetime | None) -> None:
    agents = [FIRST, agent(TWO, P.PENDING, 2)]

    assert plan(agents, HELD, released=2, wave_done_at=wave_done_at) == StepPlan(wave_done=True)
    assert plan(agents, HELD, released=2, wave_done_at=NOW - timedelta(seconds=300), paused=True).offer == ()


def test_hold_is_in_effect_only_while_wave_is_done_and_later_wave_has_agents() -> None:
    undecided: dict[str, Any] = {"wave_done_at": NOW}
    late = agent(THREE, P.OFFERED, age_s=TIMEOUT_S)
    tolerant = Strategy.waves((50, 100), holds=(None, "manual"), failure_threshold_percent=50)

    assert plan([FIRST, agent(THREE, P.OFFERED), LAST], HELD, **undecided) == StepPlan()  # an agent was retried
    assert plan([FIRST], HELD, **undecided) == StepPlan(wave_done=True, outcome="active")  # no later wave has agents
    assert plan([FIRST, late, LAST], HELD, **undecided).reason == "timeout"
    assert plan([FIRST, late, agent(TWO, P.PENDING, 1)], tolerant) == StepPlan(
        timed_out=(THREE,), wave_done=True, hold=Hold.MANUAL, held_wave=1
    )
    assert plan([agent(ONE, P.FAILED), LAST], HELD, released=2, is_started=True).reason == "threshold"
    assert plan([FIRST, LAST], HELD, complete=False) == StepPlan()
    joiner = agent(THREE, P.OFFERED, counted=False)  # uncounted agents do not delay a hold
    assert plan([FIRST, joiner, LAST], HELD).hold is Hold.APPROVAL


@given(
    holds=st.lists(st.sampled_from([None, "manual", "approval"]), min_size=4, max_size=4).map(lambda h: (None, *h)),
    filled=st.sets(st.integers(1, 4), min_size=1),
    is_started=st.booleans(),
)
def test_planner_never_skips_hold_on_way_through_waves(
    holds: tuple[str | None, ...], filled: set[int], is_started: bool
) -> None:
    strategy, wave, passed = Strategy.waves((20, 40, 60, 80, 100), holds=holds), 0, set[int]()
    while wave != max(filled):
        agents = [agent(UUID(int=9 + n), P.ACTIVE if n <= wave else P.PENDING, n) for n in sorted({0, *filled})]
        made = plan(agents, strategy, wave=wave, is_started=is_started)
        if made.hold is not None:
            assert made.held_wave == min(n for n in filled if n > wave)
            between = holds[wave + 1 : made.held_wave + 1]
            assert made.hold == ("approval" if "approval" in between else "manual")
            passed |= set(range(wave + 1, made.held_wave + 1))
            made = plan(agents, strategy, wave=wave, is_started=True, released=made.held_wave)
        stand = {n for n in range(wave + 1, made.wave + 1) if holds[n] == "approval" or (holds[n] and not is_started)}
        assert stand <= passed
        assert made.wave > wave
        wave = made.wave


@given(
    percents=st.lists(st.integers(1, 99), unique=True, max_size=6).map(lambda p: (*sorted(p), 100)),
    count=st.integers(1, 300),
)
def test_each_wave_reaches_its_cumulative_percentage_of_agents(percents: tuple[int, ...], count: int) -> None:
    strategy = Strategy.waves(percents)

    bounds = strategy.wave_bounds(count)
    waves = [sum(bound <= place for bound in bounds) for place in range(count)]

    assert waves == sorted(waves)
    for wave, percent in enumerate(percents):
        reached = sum(each <= wave for each in waves)
        assert percent * count <= reached * 100 < percent * count + 100


def back(*agents: RolloutAgent) -> StepPlan:
    return plan_rollback(agents, timeout_s=TIMEOUT_S, now=NOW)


def test_rollback_waits_for_all_counted_agents() -> None:
    assert back(agent(ONE, P.ROLLED_BACK), agent(TWO, P.OFFERED)) == StepPlan()
    assert back(agent(ONE, P.ROLLED_BACK), agent(TWO, P.ROLLED_BACK)) == StepPlan(outcome="active")
    assert back() == StepPlan(outcome="active")


def test_failed_rollback_lists_agents_that_did_not_roll_back() -> None:
    made = back(agent(ONE, P.FAILED), agent(TWO, P.OFFERED, age_s=TIMEOUT_S), agent(THREE, P.ROLLED_BACK))

    assert (made.outcome, made.reason, made.timed_out) == ("failed", "rollback_failed", (TWO,))
    assert made.detail == f"2 agents did not roll back: {ONE}, {TWO}"


def test_rollback_outcome_does_not_depend_on_uncounted_agents() -> None:
    away = agent(TWO, P.OFFERED, counted=False, age_s=10 * TIMEOUT_S)

    assert back(agent(ONE, P.ROLLED_BACK), away) == StepPlan(outcome="active")
    assert back(agent(ONE, P.ROLLED_BACK), agent(TWO, P.FAILED, counted=False)) == StepPlan(outcome="active")
