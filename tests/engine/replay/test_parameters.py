"""Tests of the parameters of stages in another version, and of the note about stages without parameters."""

from pathlib import Path
from typing import Any

import pytest

from byteor.engine.replay import (
    Record,
    choose_parameters,
    compare,
    parameters_of_replay,
    stages_without_parameters,
    unchecked_stages,
)
from tests.engine.replay.replays import RECORDS, MakeBundle, MakeRing, run
from tests.engine.replay.test_ingresses import bundle_of, graph

CAPTURED = {"schema": {"required": ["bid"]}}
NEWEST = {"schema": {"required": ["user"]}}


@pytest.mark.parametrize(
    ("captured_op", "recorded", "fallback", "chosen"),
    [
        ("dataguard_check", CAPTURED, NEWEST, CAPTURED),
        ("dataguard_check", CAPTURED, None, CAPTURED),
        ("dataguard_check", None, NEWEST, NEWEST),
        ("dataguard_check", {}, NEWEST, NEWEST),
        ("dataguard_check", {}, {}, {}),
        ("dataguard_check", None, None, None),
        ("dataguard_redact", CAPTURED, NEWEST, NEWEST),  # the captured stage had another op
        ("dataguard_redact", CAPTURED, None, None),
        (None, CAPTURED, NEWEST, NEWEST),  # the capture lacks the stage
        (None, None, NEWEST, NEWEST),
    ],
)
def test_stage_uses_captured_parameters_or_fallback(
    ring: MakeRing, captured_op: str | None, recorded: Any, fallback: Any, chosen: Any
) -> None:
    captured = ring("identity", *([captured_op] if captured_op else []))

    found = choose_parameters(captured, {"s1": recorded}, ring("identity", "dataguard_check"), {"s1": fallback})

    assert found == ({} if chosen is None else {"s1": chosen})


def test_parameters_are_chosen_for_each_stage_separately(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("dataguard_check", "dataguard_check"), stage_config={"s0": CAPTURED, "s1": {}})
    spec = ring("dataguard_check", "dataguard_check", "dataguard_check")
    fallback = {"s0": NEWEST, "s1": NEWEST}

    assert parameters_of_replay(incident, spec, fallback=fallback) == {"s0": CAPTURED, "s1": NEWEST}
    assert parameters_of_replay(incident, spec, stage_config=NEWEST, fallback=fallback) == {
        "s0": CAPTURED,
        "s1": NEWEST,
    }
    assert parameters_of_replay(incident, spec, stage_config={"s2": NEWEST}, overrides=True) == {"s2": NEWEST}
    assert parameters_of_replay(incident, spec, only_fitting=True) == {"s0": CAPTURED, "s1": {}}


def test_stage_counts_as_without_parameters_only_if_its_op_needs_them() -> None:
    ops = ["identity", "dataguard_check", "dataguard_redact", "dataguard_fused", "filter", "json_map", "json_select",
           "sample", "http_post:http://127.0.0.1/", "package:x"]  # fmt: skip
    named = [op for _, op in stages_without_parameters([(op, op) for op in ops], {"filter": {"expression": "true"}})]

    assert named == ["dataguard_check", "dataguard_redact", "dataguard_fused", "json_map", "json_select", "sample"]


def test_note_counts_records_that_reached_stage_without_parameters(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("dataguard_check", "dataguard_redact", "dataguard_fused"), RECORDS)

    bare = run(incident, stage_config={"s0": CAPTURED, "s2": {}})
    given = run(incident, stage_config={"s0": CAPTURED, "s1": {"rules": []}, "s2": {"rules": [], **CAPTURED}})
    without = run(incident, stage_config=None)

    assert bare.result["notes"] == [
        {"code": "no_parameters", "name": "s1", "count": 2},
        {"code": "no_parameters", "name": "s2", "count": 2},
    ]
    assert given.result["notes"] == []
    assert [(note["name"], note["count"]) for note in without.result["notes"]] == [("s0", 3), ("s1", 3), ("s2", 3)]
    found = compare(bare.result, without.result)
    assert [len(notes) for notes in found["notes"]] == [2, 3]
    assert compare({**bare.result, "notes": []}, {"egress": {}, "stages": {}})["notes"] == [[], []]
    assert unchecked_stages(bare.result) == ["s1", "s2"]


def test_unreached_stages_without_parameters_are_noted(tmp_path: Path) -> None:
    ops = {"check": "dataguard_check", "behind": "dataguard_redact"}
    spec = graph("in>check check>behind behind>out", ops)
    incident = bundle_of(tmp_path, spec, {"in": [Record(1, 1, b"no json")]})

    outcome = run(incident, stage_config={"check": CAPTURED})

    assert outcome.result["notes"] == [{"code": "no_parameters", "name": "behind", "count": 0}]


def test_missing_parameters_are_noted_when_input_cannot_be_replayed(bundle: MakeBundle, ring: MakeRing) -> None:
    outcome = run(bundle(ring("dataguard_check"), RECORDS), journal_lane="other")

    assert (outcome.status, outcome.result["notes"]) == (
        "failed", [{"code": "no_parameters", "name": "s0", "count": 0}]
    )  # fmt: skip
