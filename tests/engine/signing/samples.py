"""Sample statements: one fixture was tested against two baselines, and another against its golden result."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from byteor.engine.canonical import Json, sha256
from byteor.engine.signing import gate_statement, test_result
from byteor.engine.signing.gate_statement import AcceptanceEntry, GateSetting, GateStatement
from byteor.engine.signing.test_result import BaselineEntry, Difference, EngineEntry, FixtureEntry, UntestedEntry
from tests.engine.signing.conftest import World

ENGINE, OTHER_ENGINE = sha256(b"engine"), sha256(b"other engine")
OLD, OLDER, OLDEST = sha256(b"old"), sha256(b"older"), sha256(b"oldest")
PRICE, VENUE = "a" * 64, "b" * 64  # ids of groups of differences
SIGNED = datetime(2026, 10, 20, 8, 5, tzinfo=UTC)
FINISHED = datetime(2026, 10, 20, 7, 58, tzinfo=UTC)
OPENING = FixtureEntry(
    fixture_id="fixture-1", name="opening", content_hash=sha256(b"1"), journal_lane="in", last_n=500, golden=False
)
OUTAGE = FixtureEntry(
    fixture_id="fixture-2", name="outage", content_hash=sha256(b"2"), journal_lane=None, last_n=None, golden=True
)


def outcome_of(fixture: FixtureEntry, baseline: str | None, outcome: str, *groups: str, further: int = 0) -> Any:
    return test_result.OutcomeEntry(
        fixture_id=fixture.fixture_id, baseline=baseline, outcome=outcome, groups=groups, further=further
    )


TESTS = (
    outcome_of(OPENING, OLD, "equal"),
    outcome_of(OPENING, OLDER, "different", PRICE),
    outcome_of(OUTAGE, None, "equal"),
)


def result(world: World, **changes: Any) -> test_result.TestResult:
    """Return a test result. By default, one test differs, in one group."""
    made = test_result.TestResult(
        spec_hash=sha256(world.spec_kv),
        config_hash=world.config_hash,
        regression_id="regression-1",
        finished_at=FINISHED,
        engine=EngineEntry(ENGINE, "1.4.0"),
        fixtures=(OPENING, OUTAGE),
        baselines=(BaselineEntry(OLD, 120, 152), BaselineEntry(OLDER, 30, 152)),
        not_tested=(UntestedEntry(OLDEST, 2),),
        tests=TESTS,
        work_candidate=110,
        work_baseline=100,
        signed_at=SIGNED,
    )
    return replace(made, **changes)


def acceptance(*differences: tuple[str, str | None], **changes: Any) -> AcceptanceEntry:
    """Return an acceptance, by default of a person. A difference is a group with a baseline (None: a golden result)."""
    made = AcceptanceEntry(
        acceptance_id="acceptance-1",
        accepted_by="ada@example.com",
        user_id="user-1",
        reason="rounding",
        accepted_at=FINISHED,
        differences=frozenset(Difference(*each) for each in differences),
    )
    return replace(made, **changes)


def setting(mode: str = "require", min_fixtures: int = 3, work: int | None = 10) -> GateSetting:
    return GateSetting(replay_gate=mode, replay_gate_min_fixtures=min_fixtures, max_work_increase_percent=work)


def gate(world: World, **changes: Any) -> GateStatement:
    """Return a gate statement. By default, the gate is required, and is open for the sample result."""
    made = GateStatement(
        org_id="org-1",
        project_id="project-1",
        environment_id=world.environment,
        deployment_id="deployment-1",
        spec_hash=sha256(world.spec_kv),
        config_hash=world.config_hash,
        setting=setting(),
        override=None,
        acceptances=(acceptance((PRICE, OLDER)),),
        requested_by="bob@example.com",
        requester_id="user-2",
        approvals_required=True,
        allow_self_acceptance=False,
        signed_at=SIGNED,
    )
    return replace(made, **changes)


def signed(
    world: World,
    *,
    key: bytes | None = None,
    result_changes: dict[str, Any] | None = None,
    **gate_changes: Any,
) -> tuple[Json, Json]:
    """Return the signed envelopes of a test result and a gate statement that belong together."""
    private_key, unsigned = key or world.active, gate(world, **gate_changes)
    tested, reference = gate_statement.sign_test(
        result(world, **(result_changes or {})), unsigned.accepted, private_key
    )
    return tested, gate_statement.sign(replace(unsigned, tested=reference), private_key)
