"""When an agent comes back: never before it was told to, and not with all the others."""

from __future__ import annotations

import random

import pytest

from byteor_cloud.agent.api import Unavailable
from byteor_cloud.agent.retry import Backoff, insist


def drawn(error: Exception, failures: int = 0, *, agents: int = 1000) -> list[float]:
    """The next delay of each of so many agents, after so many failures before."""
    dice = random.Random(8)
    delays = []
    for _ in range(agents):
        backoff = Backoff(lambda: dice.uniform(0.1, 1.0))
        for _ in range(failures):
            backoff.delay_s(error)
        delays.append(backoff.delay_s(error))
    return delays


@pytest.mark.parametrize("asked", [0.0, 1.0, 30.0, 61.0, 3600.0])
def test_a_fleet_that_is_told_one_time_spreads_after_it(asked: float) -> None:
    delays = drawn(Unavailable("over the limit", asked))

    span = max(1.0, asked / 4)
    assert min(delays) >= asked
    assert max(delays) <= asked + span
    # No tenth of the span holds more than a fifth of them.
    tenths = [int((delay - asked) / span * 10) for delay in delays]
    assert max(tenths.count(tenth) for tenth in range(10)) < 200


@pytest.mark.parametrize(("failures", "longest"), [(0, 1.0), (3, 8.0), (20, 60.0)])
def test_the_back_off_is_spread_too(failures: int, longest: float) -> None:
    delays = drawn(Unavailable("no answer"), failures)

    assert 0.1 * longest <= min(delays) < 0.2 * longest
    assert 0.9 * longest < max(delays) <= longest


def test_a_long_outage_spreads_even_a_short_retry_after() -> None:
    delays = drawn(Unavailable("not ready", 5.0), failures=6)

    assert min(delays) >= 5.0
    assert max(delays) - min(delays) > 40


def test_the_agent_s_own_dice() -> None:
    first = [Backoff().delay_s(Unavailable("over the limit", 60.0)) for _ in range(200)]
    beats = [Backoff().spread_s(5.0) for _ in range(200)]

    assert len(set(first)) > 150
    assert min(first) >= 60.0
    assert len(set(beats)) > 150
    assert 0 < min(beats) < 1.5
    assert 3.5 < max(beats) <= 5.0


def test_insisting_waits_as_long() -> None:
    waits: list[float] = []

    def call() -> None:
        raise Unavailable("not ready", 10.0)

    with pytest.raises(Unavailable):
        insist(call, waits.append, Backoff(lambda: 1.0), tries=3)
    assert waits == [12.5, 12.5]
