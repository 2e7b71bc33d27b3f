"""Tests of the comparison of two replays."""

import json
from typing import Any

from byteor.engine.replay import Record, compare
from byteor.engine.replay.compare import compare_with_members
from tests.engine.replay.replays import HOOK, MakeBundle, MakeRing, run, sha
from tests.memory import MIB

RECORDS = [Record(1, 0, b'{"a":1}'), Record(2, 0, b'{"b":2}')]


def test_identical_replays_compare_equal(bundle: MakeBundle, ring: MakeRing) -> None:
    one = run(bundle(ring(HOOK), RECORDS))

    found = compare(
        one.result, one.result, actions_a=one.audit["actions"], actions_b=one.audit["actions"],
        frames_a=one.egress_frames, frames_b=one.egress_frames,
    )  # fmt: skip

    digest = one.result["egress"]["out"]["sha256"]
    assert found == {
        "equal": True,
        "egress": {"out": {"equal": True, "records": [2, 2], "sha256": [digest, digest]}},
        "stages": {
            "s0": {
                "equal": True,
                "in": [2, 2],
                "out": [2, 2],
                "dropped": [0, 0],
                "errors": [0, 0],
                "drops": [{}, {}],
            }
        },
        "truncated": False,
        "actions": {"equal": True, "count": [2, 2]},
        "notes": [[], []],
        "first_difference": None,
    }


def test_first_difference_contains_egress_sequence_and_digests(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("dataguard_check"), RECORDS)
    one, two = run(incident), run(incident, stage_config={"s0": {"schema": {"required": ["b"]}}})

    found = compare(one.result, two.result, frames_a=one.egress_frames, frames_b=two.egress_frames)

    assert (found["equal"], found["egress"]["out"]["equal"], found["egress"]["out"]["records"]) == (
        False,
        False,
        [2, 1],
    )
    assert found["stages"]["s0"]["dropped"] == [0, 1]
    difference = found["first_difference"]
    assert (difference["egress"], difference["sequence"], difference["kind"]) == ("out", 1, "missing")
    assert difference["sha256"] == [sha(b'{"a":1}'), None]
    assert compare(one.result, two.result)["first_difference"] is None
    json.dumps(found)


def test_comparison_lists_changed_members_of_first_difference(bundle: MakeBundle, ring: MakeRing) -> None:
    redacted = {"s0": {"rules": ["b:drop"]}}
    incident = bundle(ring("dataguard_redact"), [Record(1, 0, b"{}"), *RECORDS[1:], Record(3, 0, b'{"b":3}')])
    one, two = run(incident, stage_config=redacted), run(incident)
    short = run(incident, stage_config=redacted, last_n=2)

    def shown(left: Any, right: Any) -> Any:
        options = {"frames_a": left.egress_frames, "frames_b": right.egress_frames}
        return compare_with_members(left.result, right.result, **options)

    found, members = shown(one, two)

    first = found["first_difference"]
    assert (first["sequence"], first["kind"], first["pointers"]) == (2, "changed", ["/b"])
    assert members is not None
    assert [(row.kind, row.parent + row.name, row.after) for row in members.rows] == [("added", "/b", (("2", False),))]
    missing, members = shown(one, short)
    assert (missing["first_difference"]["kind"], missing["first_difference"]["pointers"]) == ("missing", [])
    assert members is not None
    assert [(row.kind, row.before, row.after) for row in members.rows] == [("removed", (("{}", False),), ())]
    assert shown(one, one)[1] is None


def test_truncated_comparison_keeps_differing_stage() -> None:
    one: dict[str, Any] = {"in": 1, "out": 1, "dropped": 0, "errors": 0, "drops": {}}
    stages = {f"stage-{number:05}".ljust(63, "x"): one for number in range(20_000)}
    last = next(reversed(stages))
    left = {"egress": {}, "stages": stages}

    found = compare(left, {"egress": {}, "stages": {**stages, last: {**one, "in": 2}}})

    assert (found["equal"], found["truncated"], found["stages"][last]["in"]) == (False, True, [1, 2])
    assert 1000 < len(found["stages"]) < len(stages)
    assert len(json.dumps(found)) < 2 * MIB


def test_egress_or_stage_missing_on_one_side_differs(bundle: MakeBundle, ring: MakeRing) -> None:
    one = run(bundle(ring("identity"), RECORDS)).result
    two = {**one, "egress": {}, "stages": {}}

    found = compare(one, two)

    assert found["egress"]["out"]["records"] == [2, None]
    assert (found["equal"], found["stages"]["s0"]["in"]) == (False, [2, None])
    assert compare(two, one)["egress"]["out"]["records"] == [None, 2]


def test_actions_with_different_decisions_differ(bundle: MakeBundle, ring: MakeRing) -> None:
    one = run(bundle(ring(HOOK), RECORDS))
    actions = one.audit["actions"]

    found = compare(
        one.result, one.result, actions_a=actions, actions_b=[actions[0], {**actions[1], "decision": "Deny"}]
    )

    assert (found["equal"], found["actions"]) == (False, {"equal": False, "count": [2, 2]})
