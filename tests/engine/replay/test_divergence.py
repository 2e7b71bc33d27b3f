"""Tests of the first divergence between the output of a replay and the recorded output."""

from typing import Any

import pytest

from byteor.engine.compiler import encode, spec_hash
from byteor.engine.replay import (
    Frame,
    Record,
)
from tests.engine.replay.replays import RECORDS, MakeBundle, MakeRing, frames, run, sha


@pytest.mark.parametrize(
    ("expected", "divergence"),
    [
        pytest.param([Frame(1, b"aa"), Frame(2, b"bb")], None, id="same"),
        pytest.param(
            [Frame(1, b"aa"), Frame(2, b"bcc")],
            ("bytes", 2, sha(b"bcc"), sha(b"bb"), 1, 3, 2, b"cc", b"b"),
            id="other bytes",
        ),
        pytest.param([Frame(1, b"aa")], ("extra", 2, None, sha(b"bb"), 0, 0, 2, b"", b"bb"), id="extra at the end"),
        pytest.param([Frame(2, b"bb")], ("extra", 1, None, sha(b"aa"), 0, 0, 2, b"", b"aa"), id="extra before"),
        pytest.param(
            [Frame(0, b"zz"), Frame(1, b"aa"), Frame(2, b"bb")],
            ("missing", 0, sha(b"zz"), None, 0, 2, 0, b"zz", b""),
            id="missing before",
        ),
        pytest.param(
            [Frame(1, b"aa"), Frame(2, b"bb"), Frame(3, b"cc"), Frame(4, b"dd")],
            ("missing", 3, sha(b"cc"), None, 0, 2, 0, b"cc", b""),
            id="missing at the end",
        ),
        pytest.param(
            [Frame(1, b"aaa"), Frame(2, b"x")],
            ("bytes", 1, sha(b"aaa"), sha(b"aa"), 2, 3, 2, b"a", b""),
            id="longer, and only the first is reported",
        ),
    ],
)
def test_replay_reports_first_divergence_if_there_is_one(
    bundle: MakeBundle, ring: MakeRing, expected: list[Frame], divergence: tuple[Any, ...] | None
) -> None:
    records = [Record(1, 0, b"aa"), Record(2, 0, b"bb")]

    outcome = run(bundle(ring("identity"), records, expected={"out": frames(*expected)}))

    found = outcome.result["divergence"]
    if divergence is None:
        assert (outcome.status, found) == ("succeeded", None)
    else:
        kind, sequence, expected_sha, actual_sha, offset, old, new, old_part, new_part = divergence
        assert (outcome.status, outcome.error) == ("diverged", None)
        assert found == {
            "egress": "out",
            "sequence": sequence,
            "kind": kind,
            "pointers": [],
            "expected_sha256": expected_sha,
            "actual_sha256": actual_sha,
            "diff": {
                "offset": offset,
                "expected_bytes": old,
                "actual_bytes": new,
                "expected_hex": old_part.hex(),
                "actual_hex": new_part.hex(),
            },
        }


def test_divergence_lists_changed_members(bundle: MakeBundle, ring: MakeRing) -> None:
    one, other = b'{"id":1,"legs":[{"x":1},{"x":2}]}', b'{"id":1.0,"legs":[{"x":3}],"new":null}'

    outcome = run(bundle(ring("identity"), [Record(1, 0, other)], expected={"out": frames(Frame(1, one))}))

    found = outcome.result["divergence"]
    assert (found["kind"], found["pointers"]) == ("changed", ["/legs/*", "/legs/*/x", "/new"])


def test_diff_shows_at_most_64_bytes_of_each_payload(bundle: MakeBundle, ring: MakeRing) -> None:
    expected = Frame(1, b"=" * 1000 + b"x" * 5000)

    outcome = run(bundle(ring("identity"), [Record(1, 0, b"=" * 9000)], expected={"out": frames(expected)}))

    assert outcome.result["divergence"]["diff"] == {
        "offset": 1000,
        "expected_bytes": 6000,
        "actual_bytes": 9000,
        "expected_hex": (b"x" * 64).hex(),
        "actual_hex": (b"=" * 64).hex(),
    }


def test_expected_frames_of_unknown_egress_are_reported_as_missing(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("identity"), [Record(1, 0, b"a")], expected={"old": frames(Frame(1, b"a")), "empty": b""})

    outcome = run(incident)

    assert outcome.status == "diverged"
    assert (outcome.result["divergence"]["egress"], outcome.result["divergence"]["kind"]) == (
        "old",
        "missing",
    )


def test_divergence_with_lowest_sequence_is_reported_for_single_ingress(bundle: MakeBundle, ring: MakeRing) -> None:
    expected = {"z": frames(Frame(3, b"")), "b": frames(Frame(2, b"")), "a": frames(Frame(2, b""))}

    outcome = run(bundle(ring("identity"), expected=expected))

    assert (outcome.result["divergence"]["egress"], outcome.result["divergence"]["sequence"]) == ("a", 2)


def test_bundle_can_be_replayed_with_another_spec(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("identity"), RECORDS, expected={"out": frames(Frame(1, RECORDS[0].payload))})
    other = ring("dataguard_check")

    outcome = run(incident, spec=other, stage_config={"s0": {"schema": {"required": ["bid"]}}})

    assert outcome.audit["spec_sha256"] == spec_hash(encode(other))
    assert outcome.result["stages"] == {
        "s0": {"in": 3, "out": 2, "dropped": 1, "errors": 0, "drops": {"schema": {"count": 1, "first_sequence": 2}}}
    }
    assert (outcome.status, outcome.result["divergence"]["sequence"]) == ("diverged", 3)
