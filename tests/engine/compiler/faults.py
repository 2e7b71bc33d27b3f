"""Faults of plans, stages and rings, each with an edit that causes it, and the expected pointer and hint."""

from collections.abc import Callable
from typing import Any

from byteor.engine.compiler import Code

type Edit = Callable[[Any], object]
# The expected code, the fixture with a valid plan, an edit of the plan, the expected pointer and hint.
type PlanFault = tuple[Code, str, Edit, str, str]


def ring_with(edit: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda plan: edit(plan["single_ring"])


def graph_with(edit: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda plan: edit(plan["lane_graph"])


def stage(identifier: str, op: str = "identity", *after: str) -> dict[str, Any]:
    return {"id": identifier, "op": op} | ({"depends_on": list(after)} if after else {})


def link(source: str, target: str, **lane: Any) -> dict[str, Any]:
    return {"from": source, "to": target} | ({"lane": lane} if lane else {})


FAULTS: list[PlanFault] = [
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.pop("name"), "/name", 'Add "name", for example "quotes".'),
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.update(plan_v=2), "/plan_v", "Write 1."),
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.update(plan_v=True), "/plan_v", "Write 1."),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update(name="My Quotes!"),
        "/name",
        'Write, for example, "my-quotes".',
    ),
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.update(lables={}), "/lables", 'Write "labels".'),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update({"a/b~c": 1}),
        "/a~1b~0c",
        "Remove it; the permitted fields are plan_v, name, target, description, labels, single_ring, lane_graph.",
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update(labels={"team": "a\x00b"}),
        "/labels/team",
        'Write, for example, "pricing".',
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update(labels=[]),
        "/labels",
        'Write an object such as {"team": "pricing"}.',
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update(target="single-ring"),
        "/target",
        'Write "single_ring".',
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        ring_with(lambda ring: ring.update(shard_key="id")),
        "/single_ring/shard_key",
        'Remove "shard_key", or write "shards": 2 or more with "ordering": "per_key".',
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        ring_with(lambda ring: ring["stages"][1].update(depends_on=[0])),
        "/single_ring/stages/1/depends_on/0",
        'Write, for example, "decode".',
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        ring_with(lambda ring: ring["stages"][1].update(depends_on="decode")),
        "/single_ring/stages/1/depends_on",
        'Write the ids of earlier stages, such as ["decode"], never their positions.',
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        ring_with(lambda ring: ring["stages"][1].update(op="exec:/bin/ls|é")),
        "/single_ring/stages/1/op",
        'Write, for example, "identity".',
    ),
    (
        Code.PLAN_SCHEMA,
        "graph",
        graph_with(lambda graph: graph["stages"][1].update(depends_on=["a"])),
        "/lane_graph/stages/1/depends_on",
        'Remove it, and describe the order of the stages in "connections".',
    ),
    (
        Code.PLAN_SCHEMA,
        "graph",
        graph_with(lambda graph: graph["connections"].__setitem__(0, link("in", "a", kind="events", capacity=4))),
        "/lane_graph/connections/0/lane/capacity",
        'Remove "capacity", or write "kind": "sequenced_slots".',
    ),
    (
        Code.PLAN_SCHEMA,
        "graph",
        graph_with(lambda graph: graph.update(on_full="stop")),
        "/lane_graph/on_full",
        'Write "block" or "drop".',
    ),
    (
        Code.PLAN_SCHEMA,
        "graph",
        graph_with(lambda graph: graph["connections"].__setitem__(0, ["in", "a"])),
        "/lane_graph/connections/0",
        "Write an object; the permitted fields are from, to, lane.",
    ),
    (
        Code.PLAN_TARGET_MISSING,
        "ring",
        lambda plan: plan.pop("target"),
        "/target",
        'Add "target": "single_ring" or "lane_graph".',
    ),
    (
        Code.PLAN_TARGET_MISSING,
        "ring",
        lambda plan: plan.update(target="lane_graph"),
        "/lane_graph",
        'Add an object "lane_graph", or choose the other target.',
    ),
    (
        Code.STAGE_DUPLICATE_ID,
        "ring",
        ring_with(lambda ring: ring["stages"][2].update(id="decode")),
        "/single_ring/stages/2/id",
        'Choose another name, such as "decode-2".',
    ),
    (
        Code.STAGE_DUPLICATE_ID,
        "ring",
        ring_with(lambda ring: ring.update(egress="quotes_in")),
        "/single_ring/egress",
        'Choose another name, such as "quotes_in-2".',
    ),
    (
        Code.STAGE_DUPLICATE_ID,
        "graph",
        graph_with(lambda graph: graph["egress"].extend(["out-3", "out", "out-2"])),
        "/lane_graph/egress/2",
        'Choose another name, such as "out-4".',
    ),
    (
        Code.STAGE_UNKNOWN_OP,
        "ring",
        ring_with(lambda ring: ring["stages"][0].update(op="idenity")),
        "/single_ring/stages/0/op",
        'Write "identity".',
    ),
    (
        Code.STAGE_UNKNOWN_OP,
        "ring",
        ring_with(lambda ring: ring["stages"][2].update(op="http-post:http://127.0.0.1/")),
        "/single_ring/stages/2/op",
        'Write "http_post:http://127.0.0.1/".',
    ),
    (
        Code.STAGE_UNKNOWN_OP,
        "graph",
        graph_with(lambda graph: graph["stages"][2].update(op="zzz")),
        "/lane_graph/stages/2/op",
        'Write one of "identity", "dataguard_check", "dataguard_redact", "dataguard_fused", "http_post" or "exec".',
    ),
    (
        Code.STAGE_INVALID_OP,
        "ring",
        ring_with(lambda ring: ring["stages"][2].update(op="http_post:ftp://host/")),
        "/single_ring/stages/2/op",
        'Write "http_post:http://127.0.0.1:9000/hook".',
    ),
    (
        Code.RING_NO_STAGES,
        "ring",
        ring_with(lambda ring: ring.update(stages=[])),
        "/single_ring/stages",
        'Write at least one stage, such as [{"id": "decode", "op": "identity"}].',
    ),
    (
        Code.RING_TOO_MANY_STAGES,
        "ring",
        ring_with(lambda ring: ring["stages"].extend([stage("x"), stage("y")])),
        "/single_ring/stages",
        "Keep at most 4; split a larger pipeline in two.",
    ),
    (
        Code.RING_SHARDS,
        "ring",
        ring_with(lambda ring: ring.update(shards=1025)),
        "/single_ring/shards",
        "Write a whole number from 1 to 1024, without quotes.",
    ),
    (
        Code.RING_STRICT_SHARDED,
        "ring",
        ring_with(lambda ring: ring.update(shards=2, shard_key="id")),
        "/single_ring/shards",
        'Write "shards": 1, or "ordering": "per_key" to keep the order only within each shard key.',
    ),
    (
        Code.RING_SHARD_KEY_MISSING,
        "ring",
        ring_with(lambda ring: ring.update(shards=2, ordering="per_key")),
        "/single_ring/shard_key",
        'Add "shard_key": the path of the key in the payload, such as "order.customer_id".',
    ),
    (
        Code.RING_PRODUCER,
        "ring",
        ring_with(lambda ring: ring.update(producer="mpmc")),
        "/single_ring/producer",
        'Write "single".',
    ),
    (
        Code.RING_SCHEDULING,
        "ring",
        ring_with(lambda ring: ring.update(scheduling="work_queue")),
        "/single_ring/scheduling",
        'Write "dedicated".',
    ),
    (
        Code.RING_UNKNOWN_DEPENDENCY,
        "ring",
        ring_with(lambda ring: ring["stages"][1].update(depends_on=["decoder"])),
        "/single_ring/stages/1/depends_on/0",
        'Write "decode".',
    ),
    (
        Code.RING_UNKNOWN_DEPENDENCY,
        "ring",
        ring_with(lambda ring: ring["stages"][1].update(depends_on=["quotes_in"])),
        "/single_ring/stages/1/depends_on/0",
        'Remove "quotes_in", or write the id of an earlier stage.',
    ),
    (
        Code.RING_SELF_DEPENDENCY,
        "ring",
        ring_with(lambda ring: ring["stages"][1].update(depends_on=["check"])),
        "/single_ring/stages/1/depends_on/0",
        'Remove "check", or write the id of an earlier stage.',
    ),
    (
        Code.RING_FORWARD_DEPENDENCY,
        "ring",
        ring_with(lambda ring: ring["stages"][1].update(depends_on=["notify"])),
        "/single_ring/stages/1/depends_on/0",
        'Move the stage "notify" above this one, or write the id of an earlier stage.',
    ),
    (
        Code.RING_DUPLICATE_DEPENDENCY,
        "ring",
        ring_with(lambda ring: ring["stages"][1]["depends_on"].append("decode")),
        "/single_ring/stages/1/depends_on/1",
        'Remove this repeated "decode".',
    ),
    (
        Code.RING_MISSING_DEPENDENCY,
        "ring",
        ring_with(lambda ring: ring["stages"][2].pop("depends_on")),
        "/single_ring/stages/2/depends_on",
        'Write "depends_on": ["check"].',
    ),
]
