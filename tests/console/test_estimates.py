"""How much of a rollout is done, the time left at the rate so far, and when a rollout is stalled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apps.console.pages.deployments.estimates import (
    Pace,
    TimeLeft,
    describe_progress,
    estimate_rollback,
    estimate_rollout,
    measure_time,
    percent_done,
)
from apps.console.pages.deployments.waves import CountsByWave
from byteor.engine.machines import AgentProgress as A
from byteor.engine.rollout import Hold, Strategy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
# 10 agents of wave 1 are done. Of the 20 agents of wave 2, 5 are done. Wave 3 has 30 agents.
SECOND: CountsByWave = {
    (0, A.ACTIVE): 10, (1, A.ACTIVE): 4, (1, A.FAILED): 1, (1, A.DOWNLOADING): 5, (1, A.PENDING): 10,
    (2, A.PENDING): 30,
}  # fmt: skip
PACE = Pace(5, 5 * MINUTE)  # one agent a minute


def left(
    strategy: Strategy, pace: Pace = PACE, counts: CountsByWave = SECOND, done_at: datetime | None = None
) -> TimeLeft | None:
    return estimate_rollout(strategy, counts, pace, wave=1, wave_done_at=done_at, now=NOW)


def test_percent_counts_failed_agents_as_done_and_is_rounded_down() -> None:
    assert percent_done(SECOND) == 25
    assert percent_done({(0, A.ACTIVE): 999, (0, A.OFFERED): 1}) == 99
    assert percent_done({(0, A.ACTIVE): 2, (0, A.FAILED): 1}) == 100
    assert percent_done({}) is None


def test_estimate_for_remaining_agents_uses_rate_of_current_wave() -> None:
    assert left(Strategy.waves((20, 50, 100))) == TimeLeft(45 * MINUTE)


def test_estimate_includes_pauses_between_waves() -> None:
    assert left(Strategy.waves((20, 50, 100), pause_s=120)) == TimeLeft(47 * MINUTE)
    counts: CountsByWave = {(0, A.ACTIVE): 10, (1, A.ACTIVE): 20, (2, A.PENDING): 30, (3, A.PENDING): 5}
    strategy = Strategy.waves((20, 50, 90, 100), pause_s=120)
    # Half a minute of the current pause has passed. The pause before the last wave counts in full.
    done_at = NOW - 0.5 * MINUTE
    assert left(strategy, counts=counts, done_at=done_at) == TimeLeft(38.5 * MINUTE)
    assert left(strategy, counts=counts, done_at=NOW - 9 * MINUTE) == TimeLeft(37 * MINUTE)


def test_estimate_ends_at_next_hold() -> None:
    strategy = Strategy.waves((20, 50, 100), pause_s=60, holds=(None, None, "approval"))

    assert left(strategy) == TimeLeft(15 * MINUTE, 2, Hold.APPROVAL)


def test_estimate_ends_at_hold_of_wave_without_agents() -> None:
    counts: CountsByWave = {(1, A.ACTIVE): 1, (1, A.OFFERED): 1, (3, A.PENDING): 1}
    strategy = Strategy.waves((1, 2, 3, 100), holds=(None, None, "manual", None))

    assert left(strategy, counts=counts) == TimeLeft(MINUTE, 3, Hold.MANUAL)


def test_time_left_is_unknown_before_first_agent_has_finished() -> None:
    assert left(Strategy.waves(), Pace(0, MINUTE)) is None
    assert estimate_rollback({A.OFFERED: 2}, Pace(0, MINUTE)) is None


def test_rollback_estimate_leaves_out_agents_without_offer() -> None:
    counts: dict[str, int] = {A.ROLLED_BACK: 5, A.FAILED: 1, A.OFFERED: 2, A.ACTIVATING: 1, A.PENDING: 100}

    assert estimate_rollback(counts, Pace(6, 6 * MINUTE)) == TimeLeft(3 * MINUTE)


@pytest.mark.parametrize(
    ("entries", "minutes"),
    [
        ([], None),
        ([("resume", 1), ("pause", 2)], None),  # no entry shows when the wave began
        ([("offer", 10)], 10),
        ([("wave_started", 4), ("offer", 10)], 4),
        ([("resume", 1), ("pause", 3), ("offer", 10)], 8),
        ([("pause", 3), ("offer", 10)], 7),
        ([("retry", 2), ("fail", 6), ("wave_started", 8), ("offer", 10)], 4),
        ([("retry", 2), ("offer", 10)], 10),
        ([("resume", 1), ("pause", 2), ("retry", 4), ("abort", 6), ("offer", 10)], 7),
        ([("roll_back", 3), ("fail", 3), ("offer", 10)], 3),
    ],
)
def test_measured_time_excludes_times_when_deployment_was_paused_or_failed(
    entries: list[tuple[str, int]], minutes: int | None
) -> None:
    found = measure_time([(event, NOW - ago * MINUTE) for event, ago in entries], NOW)

    assert found == (None if minutes is None else minutes * MINUTE)


@pytest.mark.parametrize(
    ("pace", "quiet", "expected"),
    [
        (Pace(43, 5 * MINUTE), 4.8 * MINUTE, True),
        (Pace(43, 5 * MINUTE), 0.9 * MINUTE, False),
        (Pace(2, 50 * MINUTE), 31 * MINUTE, True),  # before that, an agent finished every 9.5 minutes
        (Pace(2, 50 * MINUTE), 29 * MINUTE, False),
    ],
)
def test_rollout_is_stalled_after_three_times_average_time_per_agent_but_at_least_one_minute(
    pace: Pace, quiet: timedelta, *, expected: bool
) -> None:
    assert pace.is_stalled(quiet) is expected


@pytest.mark.parametrize(
    ("percent", "found", "expected"),
    [
        (None, None, ""),
        (62, None, "62 % done"),
        (0, TimeLeft(timedelta(seconds=20)), "0 % done, less than a minute left"),
        (62, TimeLeft(timedelta(seconds=61)), "62 % done, about 1 min left"),
        (62, TimeLeft(12 * MINUTE), "62 % done, about 12 min left"),
        (62, TimeLeft(60 * MINUTE), "62 % done, about 1 h left"),
        (62, TimeLeft(72 * MINUTE), "62 % done, about 1 h 10 min left"),
        (62, TimeLeft(timedelta(hours=49, minutes=30)), "62 % done, about 2 d 2 h left"),
        (62, TimeLeft(3 * MINUTE, 2, Hold.APPROVAL), "62 % done, about 3 min until wave 3 needs approval"),
        (62, TimeLeft(3 * MINUTE, 2, Hold.MANUAL), "62 % done, about 3 min until wave 3 needs a manual start"),
    ],
)
def test_progress_is_described_as_phrase(percent: int | None, found: TimeLeft | None, expected: str) -> None:
    assert describe_progress(percent, found).replace("\N{NO-BREAK SPACE}", " ") == expected
