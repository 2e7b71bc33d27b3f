"""Tests of traces, which show a record at each stage and lane."""

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from byteor.engine.replay import BadInput, Record, index_file, trace
from byteor.engine.replay.journal import BadJournal
from tests.engine.replay.replays import HOOK, MakeBundle, MakeRing
from tests.engine.replay.test_ingresses import bundle_of, graph


def steps(found: dict[str, Any], at: int = 0) -> list[tuple[str, str, str, bytes | None, str | None]]:
    return [
        (
            step["kind"],
            step["id"],
            step["lane"],
            None if step["payload_base64"] is None else base64.b64decode(step["payload_base64"]),
            step["dropped"],
        )
        for step in found["records"][at]["steps"]
    ]


CONFIG = {"s1": {"schema": {"required": ["a"]}, "rules": ["b:drop"]}}


def test_trace_shows_each_stage_of_ring(bundle: MakeBundle, ring: MakeRing) -> None:
    records = [Record(1, 0, b'{"a": 1, "b": 2}'), Record(2, 0, b"{}"), Record(1, 0, b'{"a": 3}')]
    incident = bundle(ring("identity", "dataguard_fused", HOOK), records)

    found = trace(incident, 1, stage_config=CONFIG)

    assert [(record["ingress"], record["position"]) for record in found["records"]] == [("in", 0), ("in", 1)]
    assert steps(found) == [
        ("ingress", "in", "in", b'{"a": 1, "b": 2}', None),
        ("stage", "s0", "out", b'{"a": 1, "b": 2}', None),
        ("stage", "s1", "out", b'{"a":1}', None),
        ("stage", "s2", "out", b'{"a":1}', None),
        ("egress", "out", "out", b'{"a":1}', None),
    ]
    assert found["records"][0]["egress"] == ["out"]
    (action,) = found["records"][0]["steps"][3]["actions"]
    assert (action["stage"], action["decision"]) == ("s2", "DryRunOnly")
    assert found["records"][0]["steps"][0].keys() == {
        "kind", "id", "lane", "payload_base64", "json", "truncated", "dropped", "actions",
    }  # fmt: skip
    assert found["records"][0]["steps"][2]["json"] == {"a": 1}
    dropped = trace(incident, 2, stage_config=CONFIG)
    assert steps(dropped)[-1] == ("stage", "s1", "out", None, "schema")
    assert dropped["records"][0]["egress"] == []
    assert trace(incident, 9) == {"records": [], "truncated": False, "next_after": None}


def test_trace_stops_at_stage_error(bundle: MakeBundle, ring: MakeRing) -> None:
    incident = bundle(ring("identity", "dataguard_fused"), [Record(1, 0, b"[]")])

    found = trace(incident, 1, stage_config={"s1": CONFIG["s1"] | {"on_reject": "stop"}})

    assert steps(found)[-1] == ("stage", "s1", "out", None, "stage_error")


def test_graph_trace_shows_lanes_and_both_ingresses(tmp_path: Path) -> None:
    incident = bundle_of(
        tmp_path, graph("ina>s inb>s s>outx s>outy"), {"ina": [Record(4, 0, b"a")], "inb": [Record(4, 0, b"b")]}
    )

    found = trace(incident, 4)

    assert steps(found) == [
        ("ingress", "ina", "ina.s", b"a", None),
        ("lane", "s:in", "s:in", b"a", None),
        ("stage", "s", "s:out", b"a", None),
        ("lane", "s:out", "s:out", b"a", None),
        ("lane", "s.outx", "s.outx", b"a", None),
        ("lane", "s.outy", "s.outy", b"a", None),
        ("egress", "outx", "s.outx", b"a", None),
        ("egress", "outy", "s.outy", b"a", None),
    ]
    assert [record["ingress"] for record in found["records"]] == ["ina", "inb"]
    assert found["records"][1]["egress"] == ["outx", "outy"]
    assert [record["ingress"] for record in trace(incident, 4, ingress="inb")["records"]] == ["inb"]
    with pytest.raises(BadInput, match="the bundle has no journal of lane 'x'"):
        trace(incident, 4, ingress="x")


def test_large_trace_pages_contain_every_step_once(tmp_path: Path) -> None:
    chain = ["in", *(f"s{number}" for number in range(64)), "out"]
    spec = graph(" ".join(f"{source}>{target}" for source, target in pairwise(chain)))
    payload = json.dumps({"text": "x" * 65_000}).encode()
    incident = bundle_of(tmp_path, spec, {"in": [Record(1, 0, payload), Record(1, 0, b"{}")]})

    found, after, pages = list[dict[str, Any]](), None, 0
    while pages == 0 or after is not None:
        page = trace(incident, 1, after=after)
        assert len(json.dumps(page).encode()) <= 4 * 1024 * 1024
        assert page["truncated"] is (page["next_after"] is not None)
        found += [step for record in page["records"] for step in record["steps"]]
        after, pages = page["next_after"], pages + 1

    # Together, the pages have the same steps as a trace whose size limit is never reached.
    whole = trace(incident, 1, max_bytes=1 << 30)
    assert found == [step for record in whole["records"] for step in record["steps"]]
    assert [step["id"] for step in found if step["kind"] == "stage"] == chain[1:-1] * 2
    assert all(step["payload_base64"] for step in found)
    assert pages > 4


def test_trace_is_same_with_index_and_ignores_stale_index(bundle: MakeBundle, ring: MakeRing) -> None:
    numbers = [5, 1, 4, 2, 3, 3]
    incident = bundle(ring("identity"), [Record(number, at, b"%d" % at) for at, number in enumerate(numbers)])
    index = incident.journals["in"].with_name("in.idx")
    index_file(incident.journals["in"], index)

    for number in range(7):
        assert trace(incident, number, indexes={"in": index}) == trace(incident, number)
    assert [record["position"] for record in trace(incident, 3)["records"]] == [2, 3]
    index.write_bytes(b"stale")
    assert trace(incident, 5, indexes={"in": index}) == trace(incident, 5)


def test_trace_of_bad_journal_raises_bad_input(bundle: MakeBundle, ring: MakeRing) -> None:
    with pytest.raises(BadInput, match="no BYTJ journal header") as caught:
        trace(bundle(ring("identity"), b"text"), 1)
    assert isinstance(caught.value.__cause__, BadJournal)
