"""Tests of reports on waves (their digests and sentences), and of the sentences about holds and start times."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from byteor.engine.blockers import BlockerCode, StartFacts, find_blockers
from byteor.engine.rollout import Hold
from byteor.engine.wave_hold import FailureCount, HoldFacts, WaveHold, WaveReport

REPORT = WaveReport(deployment_id="d", bundle_hash="sha256:1", wave=1, progress={"active": 2}, failures=())
PORT = FailureCount("reported", "cannot open port <number>.", 1)
SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "changed",
    [
        {"deployment_id": "e"},
        {"bundle_hash": "sha256:2"},
        {"wave": 2},
        {"progress": {"active": 3}},
        {"progress": {"active": 2, "failed": 1}},
        {"failures": (PORT,)},
    ],
)
def test_digest_changes_with_each_field_of_report(changed: dict[str, Any]) -> None:
    assert replace(REPORT, **changed).digest != REPORT.digest


@pytest.mark.parametrize("changed", [{"reason": "timeout"}, {"detail": "disk full"}, {"count": 2}])
def test_digest_changes_with_each_field_of_failure(changed: dict[str, Any]) -> None:
    before, after = (replace(REPORT, failures=(each,)) for each in (PORT, replace(PORT, **changed)))

    assert before.digest != after.digest


def test_digest_ignores_order_of_progress_and_counts_of_zero() -> None:
    one = replace(REPORT, progress={"failed": 1, "active": 2})
    two = replace(REPORT, progress={"active": 2, "offered": 0, "failed": 1})

    assert one.digest == two.digest == WaveReport.from_stored(two.stored()).digest
    assert one.digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("wave", "progress", "failures", "summary"),
    [
        (1, {"active": 1}, [], "Wave 1: 1 agent (1 active)."),
        (1, {}, [], "Wave 1: 0 agents."),
        (2, {"rolled_back": 2, "active": 1200}, [], "Waves 1 to 2: 1,202 agents (1,200 active, 2 rolled back)."),
        (
            3,
            {"active": 3, "failed": 4},
            [PORT, FailureCount("timeout", "", 2), FailureCount("other", "", 1000)],
            "Waves 1 to 3: 7 agents (3 active, 4 failed). 1 agent failed (reported): cannot open port <number>. "
            "2 agents failed (timeout). 1,000 agents failed (other).",
        ),
    ],
)
def test_report_summary_states_agent_counts_and_failure_causes(
    wave: int, progress: dict[str, int], failures: list[FailureCount], summary: str
) -> None:
    assert replace(REPORT, wave=wave, progress=progress, failures=tuple(failures)).summary == summary


@pytest.mark.parametrize(
    ("kind", "facts", "sentence"),
    [
        (
            Hold.MANUAL,
            {},
            "Wave 3 of 4 has been waiting since 2026-01-02 03:04:05 UTC for an operator or admin to start it.",
        ),
        (
            Hold.APPROVAL,
            {"given": 1, "required": 2, "deciders": "Grace or Ada"},
            "Wave 3 of 4 has been waiting for approval since 2026-01-02 03:04:05 UTC: 1 of 2 people approved. "
            "Grace or Ada can decide.",
        ),
        (
            Hold.APPROVAL,
            {"required": 1},
            "Wave 3 of 4 has been waiting for approval since 2026-01-02 03:04:05 UTC: nobody has approved it yet.",
        ),
    ],
)
def test_hold_sentence_states_start_of_wait_and_who_can_end_hold_if_known(
    kind: Hold, facts: dict[str, Any], sentence: str
) -> None:
    assert HoldFacts(hold=WaveHold(2, kind, SINCE), waves=4, **facts).sentence == sentence


def test_deployment_before_its_start_time_is_blocked_until_then() -> None:
    start = SINCE.astimezone(timezone(timedelta(hours=2)))
    (blocker,) = find_blockers(StartFacts(1, waits_until=start))

    assert (blocker.code, blocker.until, blocker.ids) == (BlockerCode.START_AT, SINCE, ())
    assert blocker.detail == "The start time (2026-01-02 03:04:05 UTC) has not been reached."
    assert find_blockers(StartFacts(1)) == []


def test_wave_hold_is_read_back_with_and_without_approval() -> None:
    for approval_id in (None, UUID(int=7)):
        hold = WaveHold(2, Hold.APPROVAL, SINCE, approval_id)
        assert WaveHold.from_stored(hold.stored()) == hold
