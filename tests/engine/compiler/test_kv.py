"""Tests of KV text: its hash, ignored unknown keys, the line number in each error, and the JSON form of the spec."""

from collections.abc import Callable
from typing import Any

import pytest

from byteor.engine.compiler import (
    GraphLane,
    KvError,
    compile_plan,
    decode,
    encode,
    spec_hash,
    spec_to_json,
)


@pytest.fixture
def kv(ring: Any) -> str:
    return compile_plan(ring).spec_kv or ""


@pytest.fixture
def graph_kv(graph: Any) -> str:
    return compile_plan(graph).spec_kv or ""


def test_spec_hash_is_sha256_of_kv_text(kv: str) -> None:
    assert spec_hash("") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert spec_hash(kv) == spec_hash(encode(decode(kv)))


def test_decoding_spec_text_ignores_unknown_keys_and_line_order(kv: str) -> None:
    lines = kv.splitlines(keepends=True)
    unknown = [
        "runtime.threads=4\n",
        "single_ring.stages.0.colour=red\n",
        "single_ring.stages.9.colour=red\n",
        "lane_graph.on_full=nonsense\n",
        "lane_graph.lanes.3.name=far\n",
        "single_ring.note=\n",
    ]

    assert encode(decode("".join(unknown + lines[::-1]))) == kv


def test_lane_graph_without_lists_decodes_to_empty_lists() -> None:
    spec = decode("spec.v=1\nspec.model=lane_graph\nspec.name=a\nlane_graph.on_full=block\n")

    assert spec_to_json(spec) == {
        "v": 1,
        "model": "lane_graph",
        "name": "a",
        "lane_graph": {"on_full": "block", "lanes": [], "endpoints": [], "roles": []},
    }


def test_spec_is_written_as_json(ring: Any, golden: Callable[[str], Any]) -> None:
    assert compile_plan(ring).to_json()["spec"] == {
        "v": 1,
        "model": "single_ring",
        "name": "quotes",
        "single_ring": {
            "ingress": "quotes_in",
            "egress": "quotes_out",
            "shards": 1,
            "ordering": "strict",
            "producer": "single",
            "scheduling": "dedicated",
            "stages": [
                {"id": "decode", "op": "identity", "depends_on": []},
                {"id": "check", "op": "dataguard_check", "depends_on": [0]},
                {"id": "notify", "op": "http_post:http://127.0.0.1:9000/hook", "depends_on": [1]},
            ],
        },
    }
    graph = compile_plan(golden("graph-merges")).to_json()["spec"]["lane_graph"]
    assert graph["lanes"][2] == {"name": "west.a", "kind": "fanout_broadcast", "consumers": 1}
    assert graph["roles"][0] == {
        "name": "a:merge",
        "kind": "merge",
        "policy": "round_robin",
        "rx": [0, 1, 2],
        "tx": [3],
    }


# A part of the ring's KV text, its replacement, the expected line, and a part of the expected message.
DAMAGES = [
    ("spec.v=1\n", "", 16, "the key spec.v is missing"),
    ("spec.v=1", "spec.v=2", 1, 'spec.v must be "1", not "2"'),
    ("single_ring\n", "ring\n", 2, 'spec.model must be "single_ring" or "lane_graph", not "ring"'),
    ("spec.name=quotes\n", "", 16, "the key spec.name is missing"),
    ("shards=1", "shards=01", 6, 'shards must be a whole number from 0 to 999999999, without leading zeros, not "01"'),
    ("shards=1", "shards=1000000000", 6, "shards must be a whole number"),
    ("shards=1", "shards=", 6, 'shards must be a whole number from 0 to 999999999, without leading zeros, not ""'),
    ("ordering=strict", "ordering=loose", 7, 'ordering must be "strict" or "per_key", not "loose"'),
    ("single_ring.shards=1\n", "", 16, "the key single_ring.shards is missing"),
    ("stages.1.op=dataguard_check\n", "stages.1.opp=x\n", 12, "the key single_ring.stages.1.op is missing"),
    ("stages.1.", "stages.3.", 15, "single_ring.stages.1 is missing: the indices have a gap before 2"),
    ("stages.0.id", "stages.00.id", 11, "the key single_ring.stages.0.id is missing"),
    ("stages.2.depends_on.0", "stages.2.depends_on.1", 17, "single_ring.stages.2.depends_on.0 is missing"),
    ("depends_on.0=0", "depends_on.0=-1", 14, "must be a whole number"),
    (
        "single_ring.shards=1\n",
        "single_ring.shards=1\n" * 2,
        7,
        'the key "single_ring.shards" occurs twice',
    ),
    ("spec.name=quotes", "a=1\na=2\nspec.name=quotes", 4, 'the key "a" occurs twice'),
    ("\n", "\r\n", 1, "expected key=value in printable ASCII"),
    ("shards=1", "shards = 1", 6, "expected key=value"),
    ("shards=1", "shards= 1", 6, "expected key=value"),
    ("spec.name=quotes\n", "\nspec.name=quotes\n", 3, "expected key=value"),
    ("spec.name=quotes\n", "# a comment\nspec.name=quotes\n", 3, "expected key=value"),
    ("decode", "décode", 10, "expected key=value in printable ASCII"),
    ("decode", "de\tcode", 10, "expected key=value in printable ASCII"),
    ("spec.name", "spec..name", 3, "expected key=value"),
]


@pytest.mark.parametrize(("old", "new", "line", "why"), DAMAGES)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_error_about_damaged_text_contains_line_number(
    kv: str, *, old: str, new: str, line: int, why: str, as_bytes: bool
) -> None:
    damaged = kv.replace(old, new)

    with pytest.raises(KvError) as refusal:
        decode(damaged.encode() if as_bytes else damaged)

    assert refusal.value.line == line
    assert why in refusal.value.message
    assert str(refusal.value) == f"line {line}: {refusal.value.message}"


def test_incomplete_or_binary_text_is_refused(kv: str) -> None:
    with pytest.raises(KvError, match="line 17: the text must end with a newline"):
        decode(kv.removesuffix("\n"))
    with pytest.raises(KvError, match=r"line 1: the key spec\.v is missing"):
        decode("")
    with pytest.raises(KvError, match="line 1: expected key=value"):
        decode(b"\xff\xfe\n")


def test_spec_that_violates_validation_rules_can_be_decoded(graph_kv: str) -> None:
    spec = decode(graph_kv.replace("lanes.0.kind=events", "lanes.0.kind=events\nlane_graph.lanes.0.capacity=7"))

    assert spec.model.lanes[0] == GraphLane("in.a", "events", capacity=7)  # type: ignore[union-attr]  # the model is a LaneGraph
