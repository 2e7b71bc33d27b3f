"""How two payloads are compared: the members that differ, unusual payloads, memory, and the stage of each example."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.canonical import canonical
from byteor.engine.replay import Record, Side
from byteor.engine.replay.json_difference import MAX_CHARACTERS, differing_members
from byteor.engine.replay.lockstep import find_differences
from byteor.engine.replay.payload import MAX_BYTES, Message
from tests.engine.replay.conftest import MakeBundle, MakeRing
from tests.engine.replay.test_ingresses import bundle_of, graph
from tests.memory import MIB

MANY = {f"n{number}": number for number in range(10_000)}


def members(before: bytes | str | object, after: bytes | str | object) -> list[str] | None:
    sides = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in (before, after)]
    return differing_members(*map(Message, sides))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b"{}", b"{", None),
        (b"\xff", b"{}", None),
        (b'{"a":1,"a":2}', b'{"a":1}', None),
        (b"", b"1", None),
        (b"1", b"1.0", None),
        (b"1", b"true", [""]),
        (b"[]", b"{}", [""]),
        ([1, {"a": 1}], [2, {"a": 2}, 3], ["/*", "/*/a"]),
        ({"~/": 1}, {}, ["/~0~1"]),
        (b'{"a":1e3,"b":0.10}', b'{"b":0.1,"a":1000}', None),
        (b'{"a":9007199254740993}', b'{"a":9007199254740992}', ["/a"]),
        ({"a": MANY}, {"a": dict.fromkeys(MANY, -1)}, ["/a"]),
        ({"a": MANY}, {"a": {}}, ["/a"]),
        (MANY, dict.fromkeys(MANY, -1), [""]),
        ([MANY] * 2, [{}] * 2, ["/*"]),
        ({f"n{number}": 0 for number in range(64)}, {}, sorted(f"/n{number}" for number in range(64))),
        ({f"n{number}": 0 for number in range(65)}, {}, [""]),
        ({"a": {"x" * MAX_CHARACTERS: 1}}, {"a": {}}, ["/a"]),
        ({"a": {"x" * (MAX_CHARACTERS // 2): 1, "y" * (MAX_CHARACTERS // 2): 1}}, {"a": {}}, ["/a"]),
        ({"a": {"nul\0": 1, "b": 1}, "\ud800": {"c": 1}}, {"a": {}, "\ud800": {}}, ["", "/a", "/a/b"]),
    ],
)  # fmt: skip
def test_differing_members_have_expected_pointers_in_either_direction(
    before: object, after: object, expected: list[str] | None
) -> None:
    assert members(before, after) == members(after, before) == expected


def test_groups_of_unusual_payloads_can_be_stored(bundle: MakeBundle, ring: MakeRing) -> None:
    """Compare payloads that are not JSON, are too large or too deep, or have names that PostgreSQL cannot store."""
    wide = json.dumps(MANY).encode()
    payloads = [
        b"not JSON", b"\xff\0", b'{"\\ud800":1,"\\u0000":2}', wide, b'"' + b"x" * MAX_BYTES + b'"', b"[" * 100,
        b'{"a":' * 63 + b"1" + b"}" * 63, b'{"a":1e9999}', b"",
    ]  # fmt: skip

    def change(payload: bytes, _: object) -> bytes:
        if payload == b"":
            raise ValueError("a reason with \0 and \ud800")
        return b"{}"

    spec = ring("identity")
    made = bundle(spec, [Record(number, number, payload) for number, payload in enumerate(payloads)])
    found = find_differences(made, Side(ring("change"), None, {"change": change}), Side(spec))

    groups = [(each["kind"], each["pointers"], each["count"]) for each in found.groups]
    assert groups == [
        ("bytes", [], 5),
        ("changed", [""], 2),
        ("changed", ["/a"], 1),
        ("stop", [], 1),
    ]  # fmt: skip
    text = json.dumps(found.groups)
    assert "\\ud800" not in text
    assert "\\u0000" not in text
    assert canonical(found.groups)
    assert len(text) < 128 * 1024


def test_memory_of_comparison_grows_with_groups_and_not_with_records(tmp_path: Path, ring: MakeRing) -> None:
    spec, other = ring("identity"), ring("empty")

    def peak(name: str, records: int, groups: int) -> int:
        (tmp_path / name).mkdir()
        payloads = [b'{"n%d":1,"text":"%s"}' % (number % groups, b"x" * 400) for number in range(records)]
        made = bundle_of(tmp_path / name, spec, {"in": [Record(n, n, payload) for n, payload in enumerate(payloads)]})
        del payloads
        tracemalloc.start()
        found = find_differences(made, Side(other, None, {"empty": lambda *_: b"{}"}), Side(spec))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found.groups) == groups
        assert sum(group["count"] for group in found.groups) == records
        return most

    few, many, groups = peak("few", 1_000, 10), peak("many", 8_000, 10), peak("groups", 1_000, 800)

    assert few < MIB
    assert many < few + MIB // 4
    assert few + 800 * 1024 < groups < 16 * MIB


# -- the stage of an example


def stages_of(spec: Any, bundle: Any, *, old: Any, new: Any, old_spec: Any = None) -> dict[str, str | None]:
    """Return the stage that each group's example names, by egress."""
    found = find_differences(bundle, Side(spec, new), Side(old_spec or spec, old))
    return {each["egress"]: each["example"]["stage"] for each in found.groups}


REDACT = {"a": {"rules": ["a:drop"]}, "b": {"rules": ["b:drop"]}}


@pytest.mark.parametrize(
    ("old", "new", "stage"),
    [
        ({"s0": REDACT["a"], "s1": REDACT["b"]}, {"s1": REDACT["b"]}, "s0"),
        ({"s1": REDACT["b"]}, {"s0": REDACT["a"], "s1": REDACT["b"]}, "s0"),
        ({"s0": REDACT["a"]}, {"s0": REDACT["a"], "s1": REDACT["b"]}, "s1"),
        ({"s0": REDACT["a"], "s1": REDACT["b"]}, {"s0": REDACT["a"]}, "s1"),
        ({"s0": REDACT["a"]}, {"s1": {"rules": ["a:drop", "b:drop"]}}, "s0"),
        ({"s0": REDACT["a"]}, {"s1": REDACT["a"], "s2": REDACT["b"]}, "s2"),
    ],
)
def test_example_names_stage_of_first_different_change(
    bundle: MakeBundle, ring: MakeRing, old: Any, new: Any, stage: str
) -> None:
    spec = ring("dataguard_redact", "dataguard_redact", "dataguard_redact")
    made = bundle(spec, [Record(1, 1, b'{"a":1,"b":2,"c":3}')])

    assert stages_of(spec, made, old=old, new=new) == {"out": stage}


def test_example_of_difference_may_name_stage_that_only_one_side_has(tmp_path: Path) -> None:
    ops = {"one": "dataguard_redact", "two": "dataguard_redact"}
    long, short = graph("in>one one>two two>out", ops), graph("in>two two>out", ops)
    made = bundle_of(tmp_path, long, {"in": [Record(1, 1, b'{"a":1,"b":2,"c":3}')]})
    both = {"one": REDACT["a"], "two": REDACT["b"]}

    assert stages_of(short, made, old_spec=long, old=both, new={"two": REDACT["b"]}) == {"out": "one"}
    assert stages_of(long, made, old_spec=short, old={"two": REDACT["b"]}, new=both) == {"out": "one"}


def test_example_of_difference_group_shows_stage_on_path_to_egress_of_group(tmp_path: Path) -> None:
    ops = {"one": "dataguard_redact", "two": "dataguard_redact"}
    spec = graph("in>one one>out1 in>two two>out2", ops)
    made = bundle_of(tmp_path, spec, {"in": [Record(1, 1, b'{"a":1,"b":2}')]})

    found = stages_of(spec, made, old={}, new={"one": REDACT["a"], "two": REDACT["b"]})

    assert found == {"out1": "one", "out2": "two"}
