"""Phrases for targets, strategies and timeline details."""

from __future__ import annotations

from typing import Any

import pytest

from apps.console.pages.deployments.phrases import describe_strategy, describe_target, describe_timeline_detail
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
            {"kind": "waves", "percents": [100], "failure_threshold_percent": 5},
            "Waves up to 100 %. Stops when more than 5 % of a wave fail, without an automatic rollback.",
        ),
    ],
)
def test_strategy_is_described_in_words(strategy: dict[str, Any] | None, expected: str) -> None:
    phrase = describe_strategy(Strategy.from_stored(strategy) if strategy else None)

    assert phrase.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_timeline_detail_is_described_in_one_line() -> None:
    detail = {
        "status": ["building", "deploying"], "config_hash": [None, "sha256:" + "a" * 64], "reason": "", "agents": 3,
        "detail": "x" * 200,
    }  # fmt: skip

    assert describe_timeline_detail(detail) == (
        f"building → deploying; config_hash: sha256:{'a' * 10}…; agents: 3; detail: {'x' * 111}…"
    )


def test_timeline_detail_counts_failures_by_cause() -> None:
    causes = [
        {"reason": "reported", "detail": "no space: <number> MB", "count": 1200},
        {"reason": "rollback_timeout", "detail": "", "count": 1},
    ]
    phrase = (
        "1,200 agents (no space: <number> MB; reported by the agent), "
        "1 agent (no detail; no report in time during the rollback)"
    )

    assert describe_timeline_detail({"wave": 2, "failed": 1201, "causes": causes}) == f"wave 2: {phrase}"
    assert describe_timeline_detail({"failed": 1201, "causes": causes}) == phrase
