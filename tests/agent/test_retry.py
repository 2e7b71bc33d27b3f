"""Tests of the agent's retry delays: never shorter than the error's ``retry_after``, and spread over a fleet."""

from __future__ import annotations

import random

import pytest

from byteor.agent.api import ControlPlaneUnavailable
from byteor.agent.retry import Backoff, retry_while_unavailable


def draw_delays(error: Exception, failures: int = 0, *, agents: int = 1000) -> list[float]:
    """Return each agent's delay after ``error``, which follows ``failures`` earlier errors."""
    dice = random.Random(8)
    delays = []
    for _ in range(agents):
        backoff = Backoff(lambda: dice.uniform(0.1, 1.0))
        for _ in range(failures):
            backoff.delay_s(error)
        delays.append(backoff.delay_s(error))
    return delays


@pytest.mark.parametrize("retry_after", [0.0, 1.0, 30.0, 61.0, 3600.0])
def test_retry_delays_are_spread_when_all_agents_get_same_retry_after(retry_after: float) -> None:
    delays = draw_delays(ControlPlaneUnavailable("over the limit", retry_after))

    span = max(1.0, retry_after / 4)
    assert min(delays) >= retry_after
    assert max(delays) <= retry_after + span
    # No tenth of the span contains more than a fifth of the delays.
    tenths = [int((delay - retry_after) / span * 10) for delay in delays]
    assert max(tenths.count(tenth) for tenth in range(10)) < 200


@pytest.mark.parametrize(("failures", "longest"), [(0, 1.0), (3, 8.0), (20, 60.0)])
def test_retry_delays_are_spread_without_retry_after(failures: int, longest: float) -> None:
    delays = draw_delays(ControlPlaneUnavailable("no response"), failures)

    assert 0.1 * longest <= min(delays) < 0.2 * longest
    assert 0.9 * longest < max(delays) <= longest


def test_retry_delays_are_spread_widely_during_long_outage_despite_short_retry_after() -> None:
    delays = draw_delays(ControlPlaneUnavailable("not ready", 5.0), failures=6)

    assert min(delays) >= 5.0
    assert max(delays) - min(delays) > 40


def test_default_jitter_spreads_retry_delays_and_first_heartbeats() -> None:
    delays = [Backoff().delay_s(ControlPlaneUnavailable("over the limit", 60.0)) for _ in range(200)]
    first_waits = [Backoff().spread_s(5.0) for _ in range(200)]

    assert len(set(delays)) > 150
    assert min(delays) >= 60.0
    assert len(set(first_waits)) > 150
    assert 0 < min(first_waits) < 1.5
    assert 3.5 < max(first_waits) <= 5.0


def test_retries_wait_for_retry_after_plus_jitter() -> None:
    waits: list[float] = []

    def call() -> None:
        raise ControlPlaneUnavailable("not ready", 10.0)

    with pytest.raises(ControlPlaneUnavailable):
        retry_while_unavailable(call, waits.append, Backoff(lambda: 1.0), tries=3)
    assert waits == [12.5, 12.5]
