"""Phrases for targets, strategies and timeline details."""

from __future__ import annotations

from typing import Any

import pytest

from apps.console.pages.deployments.phrases import (
    describe_strategy,
    describe_target,
    describe_timeline_detail,
    describe_timeline_entry,
)
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


def test_timeline_detail_is_described_in_one_line() -> None:
    detail = {
        "status": ["building", "deploying"], "config_hash": [None, "sha256:" + "a" * 64], "reason": "", "agents": 3,
        "detail": "x" * 200,
    }  # fmt: skip

    assert describe_timeline_detail(detail) == (
        f"building → deploying; config_hash: sha256:{'a' * 10}…; agents: 3; detail: {'x' * 111}…"
    )


@pytest.mark.parametrize(
    ("event", "detail", "expected"),
    [
        ("hold", {"wave": 2, "kind": "manual"}, "Wave 2 waits until somebody starts it."),
        (
            "hold",
            {"wave": 3, "kind": "approval", "approval": "x", "report": "Waves 1 to 2: 2 agents (2 active)."},
            "Wave 3 waits for approval. Waves 1 to 2: 2 agents (2 active).",
        ),
        ("next_wave", {"wave": 2, "reason": "All is well."}, "Wave 2 was started. All is well."),
        ("next_wave", {"wave": 2, "reason": ""}, "Wave 2 was started."),
        ("wave_approved", {"wave": 2}, "Enough people approved wave 2."),
        ("wave_denied", {"wave": 2}, "Wave 2 was denied."),
        ("wave_expired", {"wave": 2}, "The request to approve wave 2 expired."),
        ("wave_revoked", {"wave": 2}, "The request to approve wave 2 was withdrawn."),
        (
            "change_reviewers",
            {"reviewers": [["a"], ["b", "c"]], "reason": "Ada has left."},
            "The deployment had 1 reviewer, and has 2 reviewers now. Ada has left.",
        ),
        ("create", {"note": "", "reviewers": ["a", "b"]}, "2 reviewers"),
        ("pause", {"reason": "lunch"}, "reason: lunch"),
    ],
)
def test_timeline_entry_is_described_in_one_line(event: str, detail: dict[str, Any], expected: str) -> None:
    assert describe_timeline_entry(event, detail) == expected


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
