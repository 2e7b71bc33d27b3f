"""Tests of the simulator's percentiles, counts and output."""

from __future__ import annotations

import pytest

from byteor_cloud.simulator.measured import Histogram, Measured, Summary


def test_percentiles_are_accurate_to_2_5_percent() -> None:
    times = Histogram()
    for number in range(1, 1001):
        times.add(number / 1000)

    for percent in (50, 90, 99):
        assert times.percentile_s(percent) == pytest.approx(percent / 100, rel=0.025)
    assert times.percentile_s(100) == times.longest_s == 1.0
    assert Histogram().percentile_s(99) == 0


def test_withdrawn_offers_and_responses_with_retry_after_are_not_errors() -> None:
    measured = Measured()
    for kind, status, failure, has_retry_after in (
        ("heartbeat", 200, "", False),
        ("heartbeat", 503, "", True),
        ("heartbeat", 429, "", True),
        ("report", 409, "", False),
        ("heartbeat", 503, "", False),
        ("enrollment", 409, "", False),
        ("heartbeat", 0, "connection refused", False),
    ):
        measured.count(kind, status, failure, 0.01, has_retry_after=has_retry_after)

    assert (measured.busy, measured.errors, measured.requests) == (2, 3, 7)
    assert measured.acknowledged("heartbeat") == 1
    assert measured.failures == {"connection refused": 1}


def test_summary_contains_results_as_text_and_json() -> None:
    measured = Measured()
    measured.count("heartbeat", 200, "", 0.02, has_retry_after=False)
    measured.count("heartbeat", 0, "connection refused", 0.25, has_retry_after=False)
    summary = Summary(
        scenario="herd", seed=1, agents=2, seconds=2.0, measured=measured, healthy=2, healthy_after_s=1.25,
        since="the trouble ended", rollout={"activated": 3, "withdrawn": 0}, connections=1, cpu_share=0.125,
    )  # fmt: skip

    text = "\n".join(summary.lines())
    for part in (
        "herd, seed 1, 2 agents, 1 connection", "2 in 2.0 s, 1 a second", "1 x no usable response, 1 x 200",
        "p99 250 ms", "connection refused: 1", "12 % of one core", "3 activated",
        "2 of 2 agents, all of them 1.2 s after the trouble ended",
    ):  # fmt: skip
        assert part in text
    document = summary.document()
    assert document["answers"] == {"heartbeat": {"0": 1, "200": 1}}
    assert (document["requests_per_s"], document["heartbeats_acknowledged"], document["errors"]) == (1.0, 1, 1)
