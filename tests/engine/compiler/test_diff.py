from collections.abc import Callable
from typing import Any

from byteor.engine.compiler import PipelineSpec, compile_plan, diff_specs


def spec_of(plan: Any) -> PipelineSpec:
    spec = compile_plan(plan).spec
    assert spec is not None
    return spec


def changes(old: PipelineSpec, new: PipelineSpec) -> list[tuple[Any, ...]]:
    return [(c.change, c.what, c.name, c.old, c.new) for c in diff_specs(old, new).changes]


def test_ring_diff_lists_changed_name_ops_stages_endpoints_dependencies_and_policies(ring: Any) -> None:
    old = spec_of(ring)
    ring["name"] = "trades"
    ring["single_ring"] |= {"egress": "out", "shards": 4, "ordering": "per_key", "shard_key": "id"}
    decode, check, _ = ring["single_ring"]["stages"]
    check["op"] = "dataguard_fused"
    ring["single_ring"]["stages"] = [
        decode,
        check,
        {"id": "audit", "op": "identity", "depends_on": ["decode", "check"]},
    ]

    assert changes(old, spec_of(ring)) == [
        ("changed", "pipeline", "name", "quotes", "trades"),
        ("changed", "op", "check", "dataguard_check", "dataguard_fused"),
        ("removed", "stage", "notify", "http_post:http://127.0.0.1:9000/hook", None),
        ("added", "stage", "audit", None, "identity"),
        ("removed", "endpoint", "quotes_out", "egress", None),
        ("added", "endpoint", "out", None, "egress"),
        ("removed", "dependency", "check -> notify", None, None),
        ("added", "dependency", "decode -> audit", None, None),
        ("added", "dependency", "check -> audit", None, None),
        ("changed", "policy", "shards", 1, 4),
        ("changed", "policy", "ordering", "strict", "per_key"),
        ("added", "policy", "shard_key", None, "id"),
    ]


def test_stage_order_is_compared_only_for_shared_stages(golden: Callable[[str], Any]) -> None:
    plan = golden("ring-identities")
    old = spec_of(plan)
    plan["single_ring"]["stages"].insert(0, {"id": "new", "op": "identity"})
    assert changes(old, spec_of(plan)) == [("added", "stage", "new", None, "identity")]

    plan["single_ring"]["stages"][1:3] = plan["single_ring"]["stages"][2:0:-1]
    assert changes(old, spec_of(plan)) == [
        ("added", "stage", "new", None, "identity"),
        ("changed", "order", "a", 0, 1),
        ("changed", "order", "b", 1, 0),
    ]


def test_lane_graph_diff_lists_changed_stages_dependencies_lanes_roles_and_policies(graph: Any) -> None:
    old = spec_of(graph)
    graph["lane_graph"]["on_full"] = "drop"
    graph["lane_graph"]["features"] = ["sequenced_slots"]
    del graph["lane_graph"]["stages"][2]
    graph["lane_graph"]["connections"] = [
        {"from": "in", "to": "a", "lane": {"kind": "sequenced_slots", "capacity": 64}},
        {"from": "a", "to": "b", "lane": {"kind": "fanout_broadcast"}},
        {"from": "b", "to": "out"},
    ]

    assert changes(old, spec_of(graph)) == [
        ("removed", "stage", "c", "identity", None),
        ("removed", "dependency", "a -> c", None, None),
        ("removed", "dependency", "c -> out", None, None),
        ("changed", "lane", "in.a", "events", "sequenced_slots capacity=64"),
        ("changed", "lane", "a:bridge", "events", "sequenced_slots capacity=64"),
        ("removed", "lane", "a:fanout", "fanout_broadcast consumers=2", None),
        ("changed", "lane", "a.b", "events", "fanout_broadcast consumers=1"),
        ("removed", "lane", "a.c", "events", None),
        ("removed", "lane", "c.out", "events", None),
        ("removed", "lane", "out:in", "events", None),
        ("added", "lane", "b:bridge", None, "fanout_broadcast consumers=1"),
        ("removed", "inserted", "a:router", "router", None),
        ("removed", "inserted", "out:merge", "merge", None),
        ("added", "inserted", "b:bridge", None, "bridge"),
        ("changed", "policy", "on_full", "block", "drop"),
        ("removed", "policy", "out:merge", "round_robin", None),
    ]


def test_diff_lists_change_from_single_ring_to_lane_graph(ring: Any, graph: Any) -> None:
    diff = diff_specs(spec_of(ring), spec_of(graph))

    assert ("changed", "pipeline", "model", "single_ring", "lane_graph") in changes(spec_of(ring), spec_of(graph))
    assert diff.unified.startswith(
        "--- old\n+++ new\n@@ -1,17 +1,57 @@\n spec.v=1\n-spec.model=single_ring\n+spec.model=lane_graph\n"
    )


def test_unified_diff_has_three_context_lines(ring: Any) -> None:
    old = spec_of(ring)
    ring["name"] = "trades"
    del ring["single_ring"]["stages"][2]
    ring["single_ring"]["stages"][1]["op"] = "dataguard_fused"

    diff = diff_specs(old, spec_of(ring))

    assert diff.to_json()["unified"] == (
        "--- old\n"
        "+++ new\n"
        "@@ -1,6 +1,6 @@\n"
        " spec.v=1\n"
        " spec.model=single_ring\n"
        "-spec.name=quotes\n"
        "+spec.name=trades\n"
        " single_ring.ingress=quotes_in\n"
        " single_ring.egress=quotes_out\n"
        " single_ring.shards=1\n"
        "@@ -10,8 +10,5 @@\n"
        " single_ring.stages.0.id=decode\n"
        " single_ring.stages.0.op=identity\n"
        " single_ring.stages.1.id=check\n"
        "-single_ring.stages.1.op=dataguard_check\n"
        "+single_ring.stages.1.op=dataguard_fused\n"
        " single_ring.stages.1.depends_on.0=0\n"
        "-single_ring.stages.2.id=notify\n"
        "-single_ring.stages.2.op=http_post:http://127.0.0.1:9000/hook\n"
        "-single_ring.stages.2.depends_on.0=1\n"
    )
    assert diff.to_json()["changes"][0] == {
        "change": "changed",
        "what": "pipeline",
        "name": "name",
        "old": "quotes",
        "new": "trades",
    }


def test_unified_diff_shows_added_line_at_its_position(golden: Callable[[str], Any]) -> None:
    plan = golden("ring-identities")
    old = spec_of(plan)
    plan["single_ring"] |= {"shards": 2, "ordering": "per_key", "shard_key": "id"}

    unified = diff_specs(old, spec_of(plan)).unified

    assert " single_ring.scheduling=dedicated\n+single_ring.shard_key=id\n single_ring.stages.0.id=a\n" in unified
