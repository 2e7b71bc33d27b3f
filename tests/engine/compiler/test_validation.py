"""``validate_spec`` applies the rules for plans to a decoded spec. Its pointers refer to the JSON form of the spec."""

from typing import Any

import pytest

from byteor.engine.compiler import Ops, PipelineSpec, compile_plan, decode, validate_spec


@pytest.fixture
def ring_kv(ring: Any) -> str:
    return compile_plan(ring).spec_kv or ""


@pytest.fixture
def graph_kv(graph: Any) -> str:
    return compile_plan(graph).spec_kv or ""


def codes_and_pointers(spec: PipelineSpec) -> list[tuple[str, str]]:
    return [(diagnostic.code.value, diagnostic.pointer) for diagnostic in validate_spec(spec)]


@pytest.mark.parametrize(
    ("old", "new", "code", "pointer"),
    [
        ("name=quotes", "name=Quotes", "plan.schema", "/name"),
        ("ingress=quotes_in", "ingress=", "plan.schema", "/single_ring/ingress"),
        ("egress=quotes_out", "egress=check", "stage.duplicate_id", "/single_ring/stages/1/id"),
        ("shards=1", "shards=2\nsingle_ring.shard_key=a", "ring.strict_sharded", "/single_ring/shards"),
        ("shards=1", "shards=0", "ring.shards", "/single_ring/shards"),
        (
            "scheduling=dedicated",
            "scheduling=dedicated\nsingle_ring.shard_key=a",
            "plan.schema",
            "/single_ring/shard_key",
        ),
        ("op=identity", "op=nothing", "stage.unknown_op", "/single_ring/stages/0/op"),
        ("op=http_post:http", "op=http_post:ftp", "stage.invalid_op", "/single_ring/stages/2/op"),
        (
            "1.depends_on.0=0",
            "1.depends_on.0=1",
            "ring.self_dependency",
            "/single_ring/stages/1/depends_on/0",
        ),
        (
            "1.depends_on.0=0",
            "1.depends_on.0=2",
            "ring.forward_dependency",
            "/single_ring/stages/1/depends_on/0",
        ),
        (
            "1.depends_on.0=0",
            "1.depends_on.0=9",
            "ring.unknown_dependency",
            "/single_ring/stages/1/depends_on/0",
        ),
        (
            "2.depends_on.0=1",
            "2.depends_on.0=1\nsingle_ring.stages.2.depends_on.1=1",
            "ring.duplicate_dependency",
            "/single_ring/stages/2/depends_on/1",
        ),
        (
            "2.depends_on.0=1",
            "2.depends_on.0=1\nsingle_ring.stages.2.depends_on.1=0",
            "plan.schema",
            "/single_ring/stages/2/depends_on",
        ),
        (
            "single_ring.stages.2.depends_on.0=1\n",
            "",
            "ring.missing_dependency",
            "/single_ring/stages/2/depends_on",
        ),
    ],
)
def test_faults_of_decoded_ring_are_reported(ring_kv: str, old: str, new: str, code: str, pointer: str) -> None:
    assert codes_and_pointers(decode(ring_kv.replace(old, new))) == [(code, pointer)]


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ("name=fan", "name=Fan", [("plan.schema", "/name")]),
        ("lanes.0.name=in.a", "lanes.0.name=in", [("plan.schema", "/lane_graph/lanes/0/name")]),
        ("lanes.0.name=in.a", "lanes.0.name=a.b", [("stage.duplicate_id", "/lane_graph/lanes/3/name")]),
        (
            "lanes.0.kind=events",
            "lanes.0.kind=sequenced_slots",
            [("graph.slots_capacity", "/lane_graph/lanes/0/capacity")],
        ),
        (
            "lanes.0.kind=events",
            "lanes.0.kind=events\nlane_graph.lanes.0.capacity=4\nlane_graph.lanes.0.consumers=4",
            [
                ("plan.schema", "/lane_graph/lanes/0/capacity"),
                ("plan.schema", "/lane_graph/lanes/0/consumers"),
            ],
        ),
        ("consumers=2", "consumers=5", [("graph.fanout_consumers", "/lane_graph/lanes/2/consumers")]),
        (
            "lane_graph.lanes.2.consumers=2\n",
            "",
            [("graph.fanout_consumers", "/lane_graph/lanes/2/consumers")],
        ),
        ("endpoints.0.name=in", "endpoints.0.name=c", [("stage.duplicate_id", "/lane_graph/roles/4/name")]),
        ("roles.0.name=a\n", "roles.0.name=a:b\n", [("plan.schema", "/lane_graph/roles/0/name")]),
        ("roles.1.name=a:bridge", "roles.1.name=bridge", [("plan.schema", "/lane_graph/roles/1/name")]),
        ("roles.0.op=identity", "roles.0.op=", [("plan.schema", "/lane_graph/roles/0/op")]),
        ("lane_graph.roles.0.op=identity\n", "", [("plan.schema", "/lane_graph/roles/0/op")]),
        ("roles.0.op=identity", "roles.0.op=exec:", [("stage.invalid_op", "/lane_graph/roles/0/op")]),
        (
            "roles.1.kind=bridge",
            "roles.1.kind=bridge\nlane_graph.roles.1.op=identity\nlane_graph.roles.1.policy=round_robin",
            [("plan.schema", "/lane_graph/roles/1/op"), ("plan.schema", "/lane_graph/roles/1/policy")],
        ),
        ("lane_graph.roles.5.policy=round_robin\n", "", [("plan.schema", "/lane_graph/roles/5/policy")]),
        (
            "lane_graph.roles.2.tx.1=4\n",
            "",
            [("plan.schema", "/lane_graph/roles/2/tx"), ("plan.schema", "/lane_graph/lanes/4")],
        ),
        (
            "roles.0.tx.0=1",
            "roles.0.tx.0=1\nlane_graph.roles.0.tx.1=0",
            [("plan.schema", "/lane_graph/roles/0/tx"), ("plan.schema", "/lane_graph/roles/0/tx/1")],
        ),
        (
            "endpoints.1.kind=egress",
            "endpoints.1.kind=ingress",
            [
                ("graph.boundary_unconnected", "/lane_graph/endpoints"),
                ("plan.schema", "/lane_graph/roles/5/tx/0"),
                ("plan.schema", "/lane_graph/lanes/7"),
            ],
        ),
        (
            "roles.0.tx.0=1",
            "roles.0.tx.0=8",
            [("plan.schema", "/lane_graph/roles/0/tx/0"), ("plan.schema", "/lane_graph/lanes/1")],
        ),
    ],
)
def test_faults_of_decoded_lane_graph_are_reported(
    graph_kv: str, old: str, new: str, faults: list[tuple[str, str]]
) -> None:
    assert codes_and_pointers(decode(graph_kv.replace(old, new))) == faults


def test_cycle_in_decoded_lane_graph_is_reported(graph_kv: str) -> None:
    # The stage b reads its own output, and the router's lane to b leads to the merge.
    crossed = graph_kv.replace("roles.3.rx.0=3", "roles.3.rx.0=5").replace("roles.5.rx.0=5", "roles.5.rx.0=3")

    assert codes_and_pointers(decode(crossed)) == [
        ("graph.cycle", "/lane_graph/lanes/5"),
        ("graph.unreachable", "/lane_graph/roles/3"),
        ("graph.dead_end", "/lane_graph/roles/3"),
    ]


def test_oversized_decoded_lane_graph_is_reported() -> None:
    lanes = "".join(
        f"lane_graph.lanes.{n}.name=s{n}.s{n + 1}\nlane_graph.lanes.{n}.kind=events\n" for n in range(16_385)
    )
    roles = "".join(
        f"lane_graph.roles.{n}.name=s{n}\nlane_graph.roles.{n}.kind=stage\nlane_graph.roles.{n}.op=identity\n"
        f"lane_graph.roles.{n}.rx.0={n}\nlane_graph.roles.{n}.tx.0={n + 1}\n"
        for n in range(4_097)
    )
    head = "spec.v=1\nspec.model=lane_graph\nspec.name=a\nlane_graph.on_full=block\n"

    codes = [code for code, _ in codes_and_pointers(decode(head + lanes + roles))]

    assert codes[:2] == ["graph.too_large", "graph.too_large"]


def test_validate_spec_accepts_given_ops(ring_kv: str) -> None:
    spec = decode(ring_kv.replace("op=identity", "op=twice"))

    class Twice:
        def validate(self, argument: str | None) -> str | None:
            return None

        def process(self, payload: bytes, params: dict[str, Any] | None) -> bytes | None:
            return payload * 2

    assert validate_spec(spec) != ()
    assert validate_spec(spec, ops=Ops({"twice": Twice()})) == ()
