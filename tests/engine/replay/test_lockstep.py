"""Tests of the differences between two configurations: against a slow model, and case by case."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from byteor.engine.compiler import PipelineSpec, compile_plan
from byteor.engine.replay import Cancelled, Record, ReplayLimits, Unsupported, lockstep
from byteor.engine.replay.lockstep import LockstepStatus, find_differences
from byteor.engine.replay.side_run import Side
from tests.engine.replay import difference_model, model
from tests.engine.replay.conftest import MakeBundle, MakeRing
from tests.engine.replay.plans import changes
from tests.engine.replay.test_ingresses import bundle_of

type Configured = tuple[dict[str, Any], dict[str, Any]]


@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(drawn=changes(), batch=st.sampled_from([1, 3, 1000]))
def test_groups_equal_those_of_slow_model(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[Configured, Configured, dict[str, list[Record]]],
    batch: int,
) -> None:
    (old_plan, old_config), (new_plan, new_config), journals = drawn
    old, new = compile_plan(old_plan).spec, compile_plan(new_plan).spec
    assume(old is not None and new is not None and set(model.ingresses(new_plan)) & set(journals))
    assert old is not None
    assert new is not None
    bundle = bundle_of(tmp_path_factory.mktemp("model"), old, journals)
    lanes = dict.fromkeys((*model.ingresses(new_plan), *model.ingresses(old_plan)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockstep, "_BATCH_RECORDS", batch)
        found = find_differences(bundle, Side(new, new_config), Side(old, old_config))

    records = difference_model.merged(list(lanes), journals)
    expected = difference_model.groups((old_plan, old_config), (new_plan, new_config), records)
    assert {
        (group["egress"], group["kind"], tuple(group["pointers"]), group["code"]): (
            group["count"],
            (group["example"]["ingress"], group["example"]["sequence"]),
        )
        for group in found.groups
    } == expected
    assert found.status == (LockstepStatus.DIFFERENT if expected else LockstepStatus.EQUAL)


def journal(*payloads: bytes) -> list[Record]:
    return [Record(number, number, payload) for number, payload in enumerate(payloads)]


def compared(bundle: MakeBundle, old: PipelineSpec, new: PipelineSpec, records: list[Record], **sides: Any) -> Any:
    """Return the differences of two specs. ``old_config`` and ``new_config`` are their stage parameters."""
    ops = sides.pop("ops", {})
    candidate = Side(new, sides.pop("new_config", None), ops)
    baseline = Side(old, sides.pop("old_config", None), ops)
    return find_differences(bundle(old, records), candidate, baseline, **sides)


def check(op: str) -> dict[str, Any]:
    return {"s0": {"schema": {"type": "object"}, "on_reject": op}}


def test_example_is_first_difference_of_group_and_names_stage_that_caused_it(
    bundle: MakeBundle, ring: MakeRing
) -> None:
    spec = ring("identity", "dataguard_redact")
    config = {"s1": {"rules": ["name:hash"]}}

    found = compared(bundle, spec, spec, journal(b'{"a":1}', b'{"name":"x"}', b'{"name":"y"}'), new_config=config)

    [group] = found.groups
    digest = hashlib.sha256(b'"x"').hexdigest()
    assert (group["egress"], group["kind"], group["pointers"], group["count"]) == ("out", "changed", ["/name"], 2)
    assert group["example"]["sequence"] == 1
    assert group["example"]["before"]["json"] == {"name": "x"}
    assert group["example"]["after"]["json"] == {"name": digest}
    assert group["example"]["stage"] == "s1"


def test_group_id_is_digest_of_its_properties(bundle: MakeBundle, ring: MakeRing) -> None:
    spec = ring("dataguard_redact")

    found = compared(bundle, spec, spec, journal(b'{"a":1}'), new_config={"s0": {"rules": ["a:drop"]}})

    [group] = found.groups
    assert group["id"] == hashlib.sha256(b'["out","changed",["/a"],null]').hexdigest()


def test_group_of_newly_dropped_records_names_reason_and_stage(bundle: MakeBundle, ring: MakeRing) -> None:
    spec = ring("dataguard_check")

    found = compared(bundle, spec, spec, journal(b"{}", b"[]"), new_config=check("drop"))

    [group] = found.groups
    assert (group["kind"], group["code"], group["example"]["stage"]) == ("missing", "not_object", "s0")
    assert (group["example"]["before"]["json"], group["example"]["after"]) == ([], None)


@pytest.mark.parametrize(("new", "code"), [("stop", "rejected"), ("drop", None)])
def test_stop_of_only_one_side_is_difference(bundle: MakeBundle, ring: MakeRing, new: str, code: str | None) -> None:
    spec, old = ring("dataguard_check"), "drop" if new == "stop" else "stop"
    records = journal(b"{}", b"[]", b"[]")

    found = compared(bundle, spec, spec, records, old_config=check(old), new_config=check(new))

    [group] = found.groups
    assert (group["kind"], group["code"], group["count"]) == ("stop", code, 1)
    assert (group["example"]["sequence"], group["example"]["stage"]) == (1, "s0")


def test_sides_that_stop_at_same_stage_and_record_are_equal(bundle: MakeBundle, ring: MakeRing) -> None:
    spec = ring("dataguard_check")

    found = compared(bundle, spec, spec, journal(b"{}", b"[]"), old_config=check("stop"), new_config=check("stop"))

    assert (found.status, found.groups) == ("equal", [])


def test_equal_values_in_other_notation_are_difference_of_bytes(bundle: MakeBundle, ring: MakeRing) -> None:
    def add_space(payload: bytes, _params: object) -> bytes:
        return payload + b" "

    found = compared(bundle, ring("identity"), ring("space"), journal(b'{"a":1}'), ops={"space": add_space})

    assert [(group["kind"], group["pointers"]) for group in found.groups] == [("bytes", [])]


def test_more_than_64_differing_members_are_replaced_by_common_parent(bundle: MakeBundle, ring: MakeRing) -> None:
    before = json.dumps({"a": {"b": {f"n{number}": 0 for number in range(65)}}, "c": 0}).encode()
    after = before.replace(b"0,", b"1,").replace(b"0}}", b"1}}")

    found = compared(bundle, ring("identity"), ring("swap"), journal(before), ops={"swap": lambda *_: after})

    assert [group["pointers"] for group in found.groups] == [["/a/b"]]


@pytest.mark.parametrize(("inner", "pointer"), [("n" * 2_000, "/outer"), ("n" * 4_096, "/outer")])
def test_differing_members_with_long_names_are_replaced_by_parent(
    bundle: MakeBundle, ring: MakeRing, inner: str, pointer: str
) -> None:
    before = json.dumps({"outer": {f"{inner}{number}": number for number in range(3)}}).encode()
    after = json.dumps({"outer": {f"{inner}{number}": -1 for number in range(3)}}).encode()

    found = compared(bundle, ring("identity"), ring("swap"), journal(before), ops={"swap": lambda *_: after})

    assert [group["pointers"] for group in found.groups] == [[pointer]]


def test_differences_beyond_1000_groups_are_only_counted(bundle: MakeBundle, ring: MakeRing) -> None:
    records = journal(*(b'{"n%d":1}' % number for number in range(1_003)))

    found = compared(bundle, ring("identity"), ring("empty"), records, ops={"empty": lambda *_: b"{}"})

    assert (len(found.groups), found.more) == (1_000, 3)


def test_differences_beyond_256_ki_characters_of_pointers_are_only_counted(bundle: MakeBundle, ring: MakeRing) -> None:
    records = journal(*(b'{"%s":1}' % (b"%03d" % number).rjust(4_000, b"n") for number in range(70)), b'{"n":1}')

    found = compared(bundle, ring("identity"), ring("empty"), records, ops={"empty": lambda *_: b"{}"})

    assert (len(found.groups), found.more) == (66, 5)
    assert found.groups[-1]["pointers"] == ["/n"]  # this short pointer still fits


def test_different_side_effects_of_same_record_are_difference(bundle: MakeBundle, ring: MakeRing) -> None:
    old, new = ring("http_post:http://a/x"), ring("http_post:http://b/x")

    found = compared(bundle, old, new, journal(b"1", b"2"))

    [group] = found.groups
    assert (group["kind"], group["code"], group["count"]) == ("action", "http_post", 2)
    assert group["example"]["after"]["json"] == {"stage": "s0", "op": "http_post:http://b/x"}


def test_candidate_that_exceeds_limit_fails_comparison(bundle: MakeBundle, ring: MakeRing) -> None:
    old, new = ring("identity"), ring("identity", "identity", "identity")

    found = compared(bundle, old, new, journal(b"1", b"2"), limits=ReplayLimits(max_work=5))

    assert (found.status, found.groups) == ("failed", [])
    assert found.error == "the replay needs more than 5 units of work"


def test_baseline_that_alone_exceeds_limit_is_reported_as_difference(bundle: MakeBundle, ring: MakeRing) -> None:
    old, new = ring("identity", "identity", "identity"), ring("identity")

    found = compared(bundle, old, new, journal(b"1", b"2"), limits=ReplayLimits(max_work=5))

    assert [(group["kind"], group["code"]) for group in found.groups] == [("stop", None)]
    assert found.groups[0]["example"]["sequence"] == 1


def test_side_with_unknown_op_raises_unsupported(bundle: MakeBundle, ring: MakeRing) -> None:
    with pytest.raises(Unsupported, match="not installed"):
        compared(bundle, ring("identity"), ring("missing"), journal(b"1"))


def test_large_payloads_of_examples_are_cut(bundle: MakeBundle, ring: MakeRing) -> None:
    payload = b'{"a":"' + b"x" * 20_000 + b'"}'

    found = compared(bundle, ring("identity"), ring("empty"), journal(payload), ops={"empty": lambda *_: b"{}"})

    example = found.groups[0]["example"]
    assert (example["before"]["truncated"], len(example["before"]["payload_base64"])) == (True, 21_848)
    assert example["after"]["json"] == {}


def test_progress_callback_receives_counts_and_can_cancel_comparison(bundle: MakeBundle, ring: MakeRing) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= 1_024:
            raise Cancelled

    with pytest.raises(Cancelled):
        compared(bundle, ring("identity"), ring("identity"), journal(*[b"1"] * 3_000), progress=progress)

    assert seen[-1] == (1_024, 3_000)
