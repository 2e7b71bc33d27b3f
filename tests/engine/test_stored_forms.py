"""The JSON forms in which values of deployments, approvals and policies are stored. Older rows can still be read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from byteor.engine.approval_subject import DeploymentOptions
from byteor.engine.break_glass import BreakGlass
from byteor.engine.release_policy import ReleasePolicy
from byteor.engine.replay_gate import GateMode
from byteor.engine.rollout import EnlistmentCursor, Hold, Strategy
from byteor.engine.target import ApprovalTarget, ReplayTarget, Target
from byteor.engine.wave_hold import FailureCount, WaveHold, WaveReport

ONE, TWO = str(UUID(int=1)), str(UUID(int=2))
HASH = "sha256:" + "c" * 64
REPLAY = ReplayTarget("execute", ONE, HASH, TWO, "in", 5, ("exec:/bin/true",))

# The keys are in the order in which PostgreSQL returns them. The API shows strategies and targets in this order.
FORMS: list[tuple[Any, str]] = [
    (
        Strategy.all_at_once(),
        '{"kind": "all_at_once", "auto_rollback": false, "failure_threshold_percent": 0}',
    ),
    (
        Strategy.all_at_once(failure_threshold_percent=30, auto_rollback=True),
        '{"kind": "all_at_once", "auto_rollback": true, "failure_threshold_percent": 30}',
    ),
    (
        Strategy.waves(),
        '{"kind": "waves", "holds": [null, null, null], "pause_s": 0, "percents": [5, 25, 100], "auto_rollback": true, '
        '"failure_threshold_percent": 0}',
    ),
    (
        Strategy.waves((10, 50, 100), holds=(None, "manual", "approval")),
        '{"kind": "waves", "holds": [null, "manual", "approval"], "pause_s": 0, "percents": [10, 50, 100], '
        '"auto_rollback": true, "failure_threshold_percent": 0}',
    ),
    (
        Strategy.waves((100,), pause_s=60, failure_threshold_percent=10, auto_rollback=False),
        '{"kind": "waves", "holds": [null], "pause_s": 60, "percents": [100], "auto_rollback": false, '
        '"failure_threshold_percent": 10}',
    ),
    (Target(), '{"all": true}'),
    (Target(selector={"tier": "edge"}), '{"selector": {"tier": "edge"}}'),
    (Target(agents=(ONE, TWO)), f'{{"agents": ["{ONE}", "{TWO}"]}}'),
    (
        REPLAY,
        f'{{"mode": "execute", "last_n": 5, "version_id": "{TWO}", "artifact_id": "{ONE}", "content_hash": "{HASH}", '
        '"journal_lane": "in", "side_effects": ["exec:/bin/true"]}',
    ),
    (
        ApprovalTarget(REPLAY),
        f'{{"mode": "execute", "last_n": 5, "version_id": "{TWO}", "artifact_id": "{ONE}", "content_hash": "{HASH}", '
        '"journal_lane": "in", "side_effects": ["exec:/bin/true"]}',
    ),
    (ApprovalTarget(Target(), 1, (ONE,)), f'{{"all": true, "count": 1, "resolved": ["{ONE}"]}}'),
    (
        ApprovalTarget(Target(selector={"tier": "edge"}), 2000, (ONE,)),
        f'{{"count": 2000, "resolved": ["{ONE}"], "selector": {{"tier": "edge"}}}}',
    ),
    (
        ApprovalTarget(Target(agents=(ONE,)), 1, (ONE,)),
        f'{{"count": 1, "agents": ["{ONE}"], "resolved": ["{ONE}"]}}',
    ),
    (
        ReleasePolicy(3600, 600, True, 2, False, 1, GateMode.WARN, 3, 10),
        '{"replay_gate": "warn", "approval_ttl_s": 3600, "agent_timeout_s": 600, "approvals_required": true, '
        '"required_approvals": 2, "allow_self_approval": false, "replay_gate_min_fixtures": 3, '
        '"max_in_flight_deployments": 1, "max_work_increase_percent": 10}',
    ),
    (
        DeploymentOptions(take_over=True, agent_timeout_s=600, override_freeze="outage", override_replay_gate="late"),
        '{"start_at": null, "take_over": true, "agent_timeout_s": 600, "override_freeze": "outage", '
        '"override_replay_gate": "late"}',
    ),
    (
        DeploymentOptions(start_at="2026-01-02T03:04:05Z"),
        '{"start_at": "2026-01-02T03:04:05Z", "take_over": false, "agent_timeout_s": null, "override_freeze": null, '
        '"override_replay_gate": null}',
    ),
    (
        WaveHold(2, Hold.APPROVAL, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), UUID(int=1)),
        f'{{"kind": "approval", "wave": 2, "since": "2026-01-02T03:04:05Z", "is_over": false, "approval_id": "{ONE}"}}',
    ),
    (
        WaveHold(1, Hold.MANUAL, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        '{"kind": "manual", "wave": 1, "since": "2026-01-02T03:04:05Z", "is_over": false, "approval_id": null}',
    ),
    (
        WaveReport(
            deployment_id=ONE,
            bundle_hash=HASH,
            wave=1,
            progress={"active": 3, "failed": 1},
            failures=(FailureCount("reported", "cannot open port <number>", 1),),
        ),
        '{"wave": 1, "failures": [{"count": 1, "detail": "cannot open port <number>", "reason": "reported"}], '
        f'"progress": {{"active": 3, "failed": 1}}, "bundle_hash": "{HASH}", "deployment_id": "{ONE}"}}',
    ),
    (
        EnlistmentCursor(5000, 9000, ONE, TWO, True),
        f'{{"after": "{ONE}", "count": 9000, "place": 5000, "until": "{TWO}", "everybody_counts": true}}',
    ),
    (
        BreakGlass("ada@acme.example", "outage", ONE, datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)),
        f'{{"by": "ada@acme.example", "reason": "outage", "user_id": "{ONE}", '
        '"approve_by": "2026-01-02T03:04:05.000678Z"}',
    ),
]


@pytest.mark.parametrize(("value", "text"), FORMS)
def test_each_value_is_stored_as_expected_json_and_read_back(value: Any, text: str) -> None:
    assert json.loads(json.dumps(value.stored())) == json.loads(text)
    assert type(value).from_stored(json.loads(text)) == value


@pytest.mark.parametrize(
    ("stored", "value"),
    [
        ({"kind": "all_at_once"}, Strategy.all_at_once()),
        ({"kind": "all_at_once", "failure_threshold_percent": 5}, Strategy.all_at_once(failure_threshold_percent=5)),
        ({"kind": "waves", "percents": [50, 100]}, Strategy.waves((50, 100), auto_rollback=False)),
        ({"kind": "waves", "auto_rollback": True}, Strategy.waves((100,))),
        (
            {"kind": "waves", "percents": [50, 100], "holds": [None, None]},
            Strategy.waves((50, 100), auto_rollback=False),
        ),
    ],
)
def test_keys_missing_from_older_stored_strategy_are_read_as_fixed_values(
    stored: dict[str, Any], value: Strategy
) -> None:
    assert Strategy.from_stored(stored) == value


def test_older_approval_target_without_count_is_read() -> None:
    assert ApprovalTarget.from_stored({"all": True}) == ApprovalTarget(Target())


def test_older_replay_target_without_optional_keys_is_read() -> None:
    stored = {"mode": "execute", "artifact_id": ONE, "content_hash": HASH, "version_id": TWO}

    assert ReplayTarget.from_stored(stored) == ReplayTarget("execute", ONE, HASH, TWO)


def test_older_policy_row_is_read_with_gate_off() -> None:
    stored = {
        "approval_ttl_s": 60, "agent_timeout_s": 5, "approvals_required": False, "required_approvals": 1,
        "allow_self_approval": True, "max_in_flight_deployments": 2,
    }  # fmt: skip

    assert ReleasePolicy.from_stored(stored) == ReleasePolicy(60, 5, False, 1, True, 2, GateMode.OFF, 0, None)


def test_older_options_row_is_read_with_defaults() -> None:
    assert DeploymentOptions.from_stored({"take_over": True}) == DeploymentOptions(
        take_over=True, agent_timeout_s=None, override_freeze=None
    )


def test_target_agents_are_unique_and_sorted() -> None:
    assert Target.of_agents([UUID(TWO), UUID(ONE), UUID(TWO)]) == Target(agents=(ONE, TWO))
