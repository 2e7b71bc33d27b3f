"""Phrases for targets and strategies."""

from __future__ import annotations

from typing import Any

import pytest

from apps.console.pages.deployments.phrases import describe_strategy, describe_target
from byteor.engine.rollout import Strategy
from byteor.engine.target import Target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, "-"),
        (Target(), "all agents of the environment"),
        (Target(selector={"region": "eu", "disk": "ssd"}), "agents with disk=ssd, region=eu"),
        (Target(agents=("x",)), "1 agent by name"),
        (Target(agents=("x",) * 2000), "2,000 agents by name"),
    ],
)
def test_target_is_described_in_words(target: Target | None, expected: str) -> None:
    assert describe_target(target) == expected


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (None, "-"),
        (
            {"kind": "all_at_once"},
            "All agents at the same time. Stops when one agent fails, without an automatic rollback.",
        ),
        (
            {"kind": "all_at_once", "failure_threshold_percent": 10, "auto_rollback": True},
            "All agents at the same time. Stops when more than 10 % fail, then rolls back automatically.",
        ),
        (
            {"kind": "waves", "percents": [5, 100], "pause_s": 60, "auto_rollback": True},
            "Waves up to 5 %, 100 %, with a pause of 60 s between waves. Stops when one agent fails, then rolls "
            "back automatically.",
        ),
        (
            {"kind": "waves", "percents": [5, 25, 50, 100], "holds": [None, "manual", "approval", "manual"]},
            "Waves up to 5 %, 25 %, 50 %, 100 %. Waves 2 and 4 wait until somebody starts them. Wave 3 waits for "
            "approval. Stops when one agent fails, without an automatic rollback.",
        ),
        (
            {"kind": "waves", "percents": [100], "failure_threshold_percent": 5},
            "Waves up to 100 %. Stops when more than 5 % of a wave fail, without an automatic rollback.",
        ),
    ],
)
def test_strategy_is_described_in_words(strategy: dict[str, Any] | None, expected: str) -> None:
    phrase = describe_strategy(Strategy.from_stored(strategy) if strategy else None)

    assert phrase.replace("\N{NO-BREAK SPACE}", " ") == expected
