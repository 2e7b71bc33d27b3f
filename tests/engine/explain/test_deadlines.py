"""The predicted timeouts and ends of pauses match the rollout planner to the microsecond."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from byteor.engine.explain.pending import pause_ends_at, times_out_at
from byteor.engine.machines import AgentProgress
from byteor.engine.rollout import RolloutAgent, Strategy, plan_rollout
from tests.engine.explain.facts import ME, NOW, OTHER, WAVES, P, ago


@pytest.mark.parametrize("progress", [P.OFFERED, P.DOWNLOADING, P.ACTIVATING])
def test_times_out_at_returns_time_at_which_planner_times_out_agent(progress: AgentProgress) -> None:
    agent = RolloutAgent(ME, 0, True, progress, ago(100))
    until = times_out_at(agent, 600)
    assert until is not None

    def is_timed_out(at: datetime) -> bool:
        plan = plan_rollout(
            Strategy.all_at_once(), [agent], wave=0, wave_done_at=None, paused=False, timeout_s=600, now=at
        )
        return plan.timed_out == (ME,)

    assert is_timed_out(until)
    assert not is_timed_out(until - timedelta(microseconds=1))


@pytest.mark.parametrize(
    "agent",
    [
        RolloutAgent(ME, 0, True, P.ACTIVE, ago(9000)),
        RolloutAgent(ME, 0, False, P.DOWNLOADING, ago(9000)),
        RolloutAgent(ME, 0, True, P.PENDING),
    ],
    ids=["done", "not counted", "not offered"],
)
def test_times_out_at_returns_none_for_agent_that_planner_does_not_time_out(agent: RolloutAgent) -> None:
    plan = plan_rollout(Strategy.all_at_once(), [agent], wave=0, wave_done_at=None, paused=True, timeout_s=600, now=NOW)

    assert plan.timed_out == ()
    assert times_out_at(agent, 600) is None


def test_pause_ends_at_returns_time_at_which_planner_starts_next_wave() -> None:
    agents = [RolloutAgent(ME, 0, True, P.ACTIVE, ago(500)), RolloutAgent(OTHER, 1, True, P.PENDING)]
    ends = pause_ends_at(WAVES, ago(100))
    assert ends is not None
    assert pause_ends_at(WAVES, None) is None

    def wave(at: datetime) -> int:
        return plan_rollout(WAVES, agents, wave=0, wave_done_at=ago(100), paused=False, timeout_s=600, now=at).wave

    assert (wave(ends - timedelta(microseconds=1)), wave(ends)) == (0, 1)
