"""Tests of the bisect planner, the transfer of parameters to other versions, and the verdicts on replays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.replay import (
    BisectOutcome,
    BisectPlan,
    Predicate,
    Verdict,
    judge,
    max_replays,
    plan_bisect,
    transfer_parameters,
)
from tests.engine.replay.replays import MakeRing

GOOD, BAD, SKIP = Verdict.GOOD, Verdict.BAD, Verdict.UNTESTABLE
LETTERS = {"g": GOOD, "b": BAD, "u": SKIP}


def bisect(truth: str, *, exhaustive: bool = False) -> tuple[BisectPlan, int]:
    """Run a bisect to completion. Return its last plan and the number of versions that were good or bad."""
    versions = [f"v{number}" for number in range(len(truth))]
    verdicts: dict[str, Verdict] = {}
    for _ in range(len(truth) + 1):
        plan = plan_bisect(versions, verdicts, exhaustive=exhaustive)
        if plan.outcome is not None:
            assert plan.replay == ()
            return plan, sum(verdict is not SKIP for verdict in verdicts.values())
        assert plan.replay
        assert not set(plan.replay) & set(verdicts)
        verdicts |= {version: LETTERS[truth[int(version[1:])]] for version in plan.replay}
    raise AssertionError("the bisect does not end")


@given(st.integers(2, 300), st.data())
def test_first_bad_version_is_found_within_replay_limit(versions: int, data: st.DataObject) -> None:
    culprit = data.draw(st.integers(1, versions - 1))

    plan, replayed = bisect("g" * culprit + "b" * (versions - culprit))

    assert (plan.outcome, plan.first_bad, plan.last_good) == (BisectOutcome.FOUND, f"v{culprit}", f"v{culprit - 1}")
    assert plan.monotone is None
    assert replayed <= max_replays(versions)


def test_64_versions_need_at_most_8_replays() -> None:
    assert max_replays(64) == 8
    assert max(bisect("g" * at + "b" * (64 - at))[1] for at in range(1, 64)) <= 8


@given(st.text("gbu", min_size=1, max_size=40), st.booleans())
def test_bisect_of_any_history_ends_within_replay_limit_unless_exhaustive(truth: str, exhaustive: bool) -> None:
    plan, replayed = bisect(truth, exhaustive=exhaustive)

    assert exhaustive or replayed <= max_replays(len(truth))
    if plan.outcome is BisectOutcome.FOUND:
        assert plan.first_bad is not None
        at = int(plan.first_bad[1:])
        assert truth[at - 1 : at + 1] == "gb"
        assert plan.last_good == f"v{at - 1}"


@pytest.mark.parametrize(
    ("truth", "outcome"),
    [
        ("gg", BisectOutcome.NO_CHANGE),
        ("bgb", BisectOutcome.NO_CHANGE),
        ("bgg", BisectOutcome.INVERTED),
        ("ub", BisectOutcome.INCONCLUSIVE),
        ("uu", BisectOutcome.INCONCLUSIVE),
        ("b", BisectOutcome.INCONCLUSIVE),
        ("guub", BisectOutcome.INCONCLUSIVE),
        ("uggubbu", BisectOutcome.INCONCLUSIVE),
        ("ugugbbu", BisectOutcome.FOUND),
    ],
)
def test_bisect_outcome_matches_history(truth: str, outcome: BisectOutcome) -> None:
    assert bisect(truth)[0].outcome is outcome


@pytest.mark.parametrize(
    ("truth", "plan"),
    [
        ("ggb", BisectPlan((), BisectOutcome.FOUND, "v2", "v1", True)),
        ("gbgb", BisectPlan((), BisectOutcome.FOUND, "v1", "v0", False)),
        ("gbg", BisectPlan((), BisectOutcome.FOUND, "v1", "v0", False)),
        ("gub", BisectPlan((), BisectOutcome.INCONCLUSIVE, "v2", "v0", True)),
        ("ggg", BisectPlan((), BisectOutcome.NO_CHANGE, monotone=True)),
        ("bgb", BisectPlan((), BisectOutcome.NO_CHANGE, monotone=False)),
        ("bgg", BisectPlan((), BisectOutcome.INVERTED, monotone=False)),
        ("uug", BisectPlan((), BisectOutcome.INCONCLUSIVE)),
    ],
)
def test_exhaustive_bisect_reports_monotonicity_only_if_two_versions_are_testable(truth: str, plan: BisectPlan) -> None:
    assert bisect(truth, exhaustive=True)[0] == plan
    assert plan_bisect(["a", "b"], {}, exhaustive=True) == BisectPlan(("a", "b"))


def test_parameters_are_transferred_to_stages_with_same_id_and_op(ring: MakeRing) -> None:
    captured = ring("identity", "dataguard_check")
    config = {"s0": {}, "s1": {"schema": True}}

    assert transfer_parameters(captured, config, ring("identity", "dataguard_check", "identity")) == config
    assert transfer_parameters(captured, config, ring("identity")) == {"s0": {}}
    assert transfer_parameters(captured, config, ring("dataguard_check", "dataguard_check")) == {"s1": {"schema": True}}
    assert transfer_parameters(captured, config, ring("identity", "dataguard_fused")) is None
    assert transfer_parameters(captured, None, ring("identity")) == {}


@pytest.mark.parametrize(
    ("predicate", "result", "error_code", "verdict"),
    [
        (Predicate.FAILS, {}, None, GOOD),
        (Predicate.FAILS, {}, "stage_error", BAD),
        (Predicate.FAILS, {}, "limit.work", SKIP),
        (Predicate.FAILS, {}, "bad_input", SKIP),
        (Predicate.DIVERGES, {"divergence": None, "reproduced": None}, None, GOOD),
        (Predicate.DIVERGES, {"divergence": {}, "reproduced": None}, None, BAD),
        (Predicate.DIVERGES, {"divergence": None, "reproduced": True}, "stage_error", GOOD),
        (Predicate.DIVERGES, {"divergence": None, "reproduced": None}, "stage_error", BAD),
        (Predicate.OUTPUT_DIFFERS_FROM, {"egress": {"out": 1}}, None, GOOD),
        (Predicate.OUTPUT_DIFFERS_FROM, {"egress": {"out": 2}}, None, BAD),
    ],
)
def test_replay_result_determines_verdict(
    predicate: Predicate, result: dict[str, object], error_code: str | None, verdict: Verdict
) -> None:
    assert judge(predicate, result, error_code, {"egress": {"out": 1}}) is verdict
