"""Tests of verdicts on fixtures, against a baseline and against a golden result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from byteor.engine.compiler import compile_plan
from byteor.engine.replay import (
    Golden,
    IncidentBundle,
    Judgment,
    Record,
    ReplayLimits,
    Result,
    Selected,
    Side,
    judge_fixture,
    run_fixture,
)
from tests.engine.replay import difference_model, model
from tests.engine.replay.conftest import MakeBundle, MakeRing
from tests.engine.replay.plans import changes
from tests.engine.replay.test_ingresses import bundle_of, graph

CHECK = {"type": "object"}
RECORDS = [Record(1, 1, b'{"a":1}'), Record(2, 2, b"[]"), Record(3, 3, b'{"a":3}')]
ALL = Selected()


def golden(bundle: IncidentBundle, side: Side, selected: Selected = ALL) -> Golden:
    """Return the current result of a configuration as a golden result, after writing it to JSON and reading it."""
    result = run_fixture(bundle, side, selected).result
    assert result is not None
    return Golden([Result.from_json(json.loads(json.dumps(result.as_json())))], side)


def outcome(judgment: Judgment) -> tuple[str, list[tuple[str, str | None, int]]]:
    return str(judgment.outcome), [(each["kind"], each["code"], each["count"]) for each in judgment.groups]


def stopping(on_reject: str = "stop", **params: Any) -> dict[str, Any]:
    return {"s0": {"schema": CHECK, "on_reject": on_reject, **params}}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (stopping("drop"), stopping("drop"), ("equal", [])),
        (stopping(), stopping(), ("equal", [])),
        (None, stopping("drop"), ("different", [("missing", "not_object", 1)])),
        (stopping("drop"), None, ("different", [("extra", "not_object", 1)])),
        (None, stopping(), ("different", [("stop", "rejected", 1)])),
        (stopping(), None, ("different", [("stop", None, 1)])),
        (stopping("drop"), stopping(), ("different", [("stop", "rejected", 1)])),
    ],
)
def test_drops_and_stops_are_judged_alike_against_baseline_and_golden_result(
    bundle: MakeBundle, ring: MakeRing, old: Any, new: Any, expected: Any
) -> None:
    spec, made = ring("dataguard_check"), bundle(ring("dataguard_check"), RECORDS)
    candidate, baseline = Side(spec, new), Side(spec, old)

    same = judge_fixture(made, candidate, baseline, ALL)
    recorded = judge_fixture(made, candidate, golden(made, baseline), ALL)

    assert outcome(same) == outcome(recorded) == expected
    assert same.groups == recorded.groups
    assert same.error is recorded.error is same.stage is None
    is_replayed = expected[0] == "equal"
    assert (recorded.work[0], recorded.work[1] == 0) == (same.work[0], is_replayed)
    assert recorded.records == (0 if is_replayed else 3)


def test_stop_in_other_stage_or_at_other_record_is_different(bundle: MakeBundle, ring: MakeRing) -> None:
    spec = ring("dataguard_check", "dataguard_check")
    made = bundle(spec, RECORDS)
    stop = {"schema": CHECK, "on_reject": "stop"}
    old = Side(spec, {"s0": stop})

    in_other_stage = judge_fixture(made, Side(spec, {"s1": stop}), golden(made, old), ALL)
    earlier = judge_fixture(made, Side(spec, {"s0": {"schema": False, "on_reject": "stop"}}), old, ALL)

    assert outcome(in_other_stage) == ("different", [("stop", "rejected", 1)])
    example = in_other_stage.groups[0]["example"]
    assert (example["before"]["json"]["stage"], example["after"]["json"]["stage"]) == ("s0", "s1")
    assert outcome(earlier) == ("different", [("stop", "rejected", 1)])
    assert earlier.groups[0]["example"]["sequence"] == 1


def test_actions_are_compared_by_op_and_not_by_lane(tmp_path: Path) -> None:
    def notify(connections: str, path: str) -> Side:
        return Side(graph(connections, {"call": f"http_post:http://h/{path}"}))

    old = notify("in>call call>out", "a")
    made = bundle_of(tmp_path, old.spec, {"in": RECORDS})
    expected = golden(made, old)

    for against in (old, expected):
        assert outcome(judge_fixture(made, notify("in>call call>copy copy>out", "a"), against, ALL)) == ("equal", [])
        other = judge_fixture(made, notify("in>call call>out", "b"), against, ALL)
        assert outcome(other) == ("different", [("action", "http_post", 3)])


def test_egress_without_records_equals_missing_egress(tmp_path: Path) -> None:
    old = Side(graph("in>out"))
    new = Side(graph("in>out in>never never>out2", {"never": "dataguard_check"}), {"never": {"schema": False}})
    made = bundle_of(tmp_path, old.spec, {"in": RECORDS})

    for candidate, baseline in ((new, old), (old, new)):
        assert outcome(judge_fixture(made, candidate, baseline, ALL)) == ("equal", [])
        assert outcome(judge_fixture(made, candidate, golden(made, baseline), ALL)) == ("equal", [])


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (ReplayLimits(max_work=5), "the replay needs more than 5 units of work"),
        (ReplayLimits(max_actions=1), "the records cause more than 1 side effects"),
        (ReplayLimits(max_records=2), "the journals have more than 2 records"),
        (ReplayLimits(max_selected_bytes=2), "the input has 16 bytes, more than 2"),
    ],
)
def test_candidate_that_exceeds_limit_fails(
    bundle: MakeBundle, ring: MakeRing, limits: ReplayLimits, error: str
) -> None:
    op = "http_post:http://h/x"
    made, candidate = bundle(ring("identity"), RECORDS), Side(ring(op, op))

    same = judge_fixture(made, candidate, Side(ring("identity")), ALL, limits=limits)
    recorded = judge_fixture(made, candidate, golden(made, Side(ring("identity"))), ALL, limits=limits)

    for judged in (same, recorded):
        assert (outcome(judged), judged.error) == (("failed", []), error)


def test_verdict_is_different_if_only_baseline_exceeds_limit(bundle: MakeBundle, ring: MakeRing) -> None:
    op = "http_post:http://h/x"
    made = bundle(ring("identity"), RECORDS)

    judged = judge_fixture(made, Side(ring("identity")), Side(ring(op, op)), ALL, limits=ReplayLimits(max_actions=1))

    assert outcome(judged) == ("different", [("stop", None, 1)])


@pytest.mark.parametrize("lane", [None, "in"])
def test_verdict_is_failed_if_candidate_lacks_journal_lane_and_different_if_baseline_lacks_it(
    tmp_path: Path, lane: str | None
) -> None:
    fits, other = Side(graph("in>out")), Side(graph("inner>out"))
    dropping = Side(graph("in>all all>out", {"all": "dataguard_check"}), {"all": {"schema": False}})
    made = bundle_of(tmp_path, fits.spec, {"in": RECORDS})
    selected = Selected(lane)

    failed = judge_fixture(made, other, fits, selected)
    assert outcome(failed) == outcome(judge_fixture(made, other, golden(made, fits, selected), selected))
    assert outcome(failed) == ("failed", [])
    assert "inner" in (failed.error or "")
    for candidate in (fits, dropping):
        assert outcome(judge_fixture(made, candidate, other, selected)) == ("different", [("stop", None, 1)])


def test_fixture_with_damaged_journal_fails(bundle: MakeBundle, ring: MakeRing) -> None:
    made = bundle(ring("identity"), b"no journal")

    judged = judge_fixture(made, Side(ring("identity")), Side(ring("dataguard_check")), ALL)

    assert judged.outcome == "failed"
    assert (judged.error or "").startswith("journal/in.bin: ")


def test_verdict_is_failed_if_candidate_lacks_op_and_not_tested_if_baseline_lacks_it(
    bundle: MakeBundle, ring: MakeRing
) -> None:
    made, present, missing = bundle(ring("identity"), RECORDS), Side(ring("identity")), Side(ring("acme:1"))
    expected = golden(made, present)
    detail = "stage 's0' has an op that is not installed: 'acme:1'"

    for against in (present, missing, expected):
        judged = judge_fixture(made, missing, against, ALL)
        assert (judged.outcome, judged.error) == ("failed", detail)
    judged = judge_fixture(made, present, missing, ALL)
    assert (judged.outcome, judged.error) == ("not_tested", f"the baseline cannot run: {detail}")
    assert judge_fixture(made, present, replace(expected, side=missing), ALL).outcome == "equal"
    changed = Side(ring("dataguard_check"), stopping())
    judged = judge_fixture(made, changed, replace(expected, side=missing), ALL)
    assert (judged.outcome, judged.groups, judged.more) == ("different", [], 1)
    assert judged.error == f"the configuration that gave an expected result cannot run: {detail}"


def test_verdict_is_different_if_configuration_of_golden_result_now_gives_another_result(
    bundle: MakeBundle, ring: MakeRing
) -> None:
    made, side = bundle(ring("identity"), RECORDS), Side(ring("identity"))
    old = replace(golden(made, side).results[0], egress={"out": {"records": 3, "sha256": "sha256:0"}})

    judged = judge_fixture(made, side, Golden([old], side), ALL)

    assert (judged.outcome, judged.groups, judged.more) == ("different", [], 1)
    detail = (
        "the candidate's result differs from the expected results, but the configuration that gave an expected result"
        " now gives the same result as the candidate"
    )
    assert judged.error == detail


def test_candidate_may_equal_any_expected_result_and_unexpected_result_is_returned_with_groups(
    bundle: MakeBundle, ring: MakeRing
) -> None:
    made, spec = bundle(ring("dataguard_check"), RECORDS), ring("dataguard_check")
    passing, dropping = Side(spec, {"s0": {"schema": True}}), Side(spec, {"s0": {"schema": False}})
    halting = Side(spec, {"s0": {"schema": False, "on_reject": "stop"}})
    first, second = golden(made, passing), golden(made, dropping)
    both = Golden([*first.results, *second.results], dropping)

    for candidate in (passing, dropping):
        judged = judge_fixture(made, candidate, both, ALL)
        assert (judged.outcome, judged.groups, judged.result) == ("equal", [], None)
    judged = judge_fixture(made, halting, both, ALL)
    assert (judged.outcome, judged.result) == ("different", golden(made, halting).results[0].as_json())
    assert judged.groups == judge_fixture(made, halting, dropping, ALL).groups
    assert judge_fixture(made, halting, dropping, ALL).result is None
    assert judge_fixture(made, dropping, first, ALL).result == second.results[0].as_json()


def test_verdict_covers_only_selected_lane_and_last_records(tmp_path: Path) -> None:
    spec = graph("in1>out in2>out")
    records = [Record(number, number, b"%d" % number) for number in range(5)]
    made = bundle_of(tmp_path, spec, {"in1": records, "in2": records})

    for selected, count in [(ALL, 10), (Selected("in1"), 5), (Selected(None, 3), 3), (Selected("in2", 2), 2)]:
        expected = golden(made, Side(spec), selected)
        judged = judge_fixture(made, Side(spec), Side(spec), selected)
        assert (judged.outcome, judged.records) == ("equal", count)
        assert expected.results[0].egress["out"]["records"] == count


@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(drawn=changes())
def test_verdicts_equal_those_of_slow_model(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    (old_plan, old_config), (new_plan, new_config), journals = drawn
    old, new = compile_plan(old_plan).spec, compile_plan(new_plan).spec
    assume(old is not None and new is not None)
    assert old is not None
    assert new is not None
    used = [set(model.ingresses(plan)) & set(journals) for plan in (old_plan, new_plan)]
    made = bundle_of(tmp_path_factory.mktemp("model"), old, journals)
    candidate, baseline = Side(new, new_config), Side(old, old_config)

    same = judge_fixture(made, candidate, baseline, ALL)
    recorded = judge_fixture(made, candidate, golden(made, baseline), ALL) if used[0] else same

    lanes = dict.fromkeys((*model.ingresses(new_plan), *model.ingresses(old_plan)))
    records = difference_model.merged(list(lanes), journals)
    differs = difference_model.groups((old_plan, old_config), (new_plan, new_config), records)
    expected = "failed" if not used[1] else "different" if differs else "equal"
    assert same.outcome == expected
    if used[0] and used[1] and golden(made, candidate).results[0].equals(golden(made, baseline).results[0]):
        # A result does not say which of several records with the same sequence had an output or a side effect.
        expected = "equal"
    assert recorded.outcome == expected
    assert recorded.groups == ([] if expected == "equal" else same.groups)
