"""One plan for every code, with the place it points at and what it tells to write instead."""

from collections.abc import Callable
from typing import Any

import pytest

from byteor_cloud.engine.compiler import MAX_DIAGNOSTICS, Code, Diagnostic, compile_plan
from byteor_cloud.engine.compiler.diagnostics import Severity, nearest, one_of, shown

type Edit = Callable[[Any], object]


def ring_with(edit: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda plan: edit(plan["single_ring"])


def graph_with(edit: Callable[[dict[str, Any]], object]) -> Edit:
    return lambda plan: edit(plan["lane_graph"])


def stage(identifier: str, op: str = "identity", *after: str) -> dict[str, Any]:
    return {"id": identifier, "op": op} | ({"depends_on": list(after)} if after else {})


def link(source: str, target: str, **lane: Any) -> dict[str, Any]:
    return {"from": source, "to": target} | ({"lane": lane} if lane else {})


def _fan_out_to_five(graph: dict[str, Any]) -> None:
    more = ["d", "e", "f"]
    graph["stages"] += [stage(name) for name in more]
    graph["connections"] += [link("a", name, kind="fanout_broadcast") for name in more]
    graph["connections"] += [link(name, "out") for name in more]


# code, the golden plan to break, how, the pointer, the hint.
ROWS: list[tuple[Code, str, Edit, str, str]] = [
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.pop("name"), "/name", 'Add "name": "quotes".'),
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.update(plan_v=2), "/plan_v", "Write 1."),
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.update(plan_v=True), "/plan_v", "Write 1."),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update(name="My Quotes!"),
        "/name",
        'Write for example "my-quotes".',
    ),
    (Code.PLAN_SCHEMA, "ring", lambda plan: plan.update(lables={}), "/lables", 'Write "labels".'),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update({"a/b~c": 1}),
        "/a~1b~0c",
        "Remove it; the fields here are plan_v, name, target, description, labels, single_ring, lane_graph.",
    ),
    (
        Code.PLAN_SCHEMA,
        "ring",
        lambda plan: plan.update(labels={"team": "a\x00b"}),
        "/labels/team",
        'Write for example "pricing".',
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
        'Write for example "decode".',
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
        'Write for example "identity".',
    ),
    (
        Code.PLAN_SCHEMA,
        "graph",
        graph_with(lambda graph: graph["stages"][1].update(depends_on=["a"])),
        "/lane_graph/stages/1/depends_on",
        'Write a connection instead: {"from": ..., "to": ...} in connections.',
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
        "Write an object with the fields from, to, lane.",
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
        'Add "lane_graph": {...}, or write another target.',
    ),
    (
        Code.STAGE_DUPLICATE_ID,
        "ring",
        ring_with(lambda ring: ring["stages"][2].update(id="decode")),
        "/single_ring/stages/2/id",
        'Write another name, such as "decode-2".',
    ),
    (
        Code.STAGE_DUPLICATE_ID,
        "ring",
        ring_with(lambda ring: ring.update(egress="quotes_in")),
        "/single_ring/egress",
        'Write another name, such as "quotes_in-2".',
    ),
    (
        Code.STAGE_DUPLICATE_ID,
        "graph",
        graph_with(lambda graph: graph["egress"].extend(["out-3", "out", "out-2"])),
        "/lane_graph/egress/2",
        'Write another name, such as "out-4".',
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
        "Leave at most 4 here; split the pipeline in two.",
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
        'Write "shards": 1, or "ordering": "per_key" to keep the order within each shard key only.',
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
        "Write the id of an earlier stage of this ring.",
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
        'Remove this second "decode".',
    ),
    (
        Code.RING_MISSING_DEPENDENCY,
        "ring",
        ring_with(lambda ring: ring["stages"][2].pop("depends_on")),
        "/single_ring/stages/2/depends_on",
        'Write "depends_on": ["check"].',
    ),
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"][3].update(to="outt")),
        "/lane_graph/connections/3/to",
        'Write "out".',
    ),
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("a", "nowhere"))),
        "/lane_graph/connections/5/to",
        "Write a name that this graph declares.",
    ),
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("a", "in"))),
        "/lane_graph/connections/5/to",
        "Write the id of a stage, or swap from and to.",
    ),
    (
        Code.GRAPH_UNKNOWN_ENDPOINT,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("out", "a"))),
        "/lane_graph/connections/5/from",
        "Write the id of a stage, or swap from and to.",
    ),
    (
        Code.GRAPH_DUPLICATE_CONNECTION,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("a", "b"))),
        "/lane_graph/connections/5",
        "Remove one of the two; a connection has one lane.",
    ),
    (
        Code.GRAPH_CYCLE,
        "graph",
        graph_with(lambda graph: graph["connections"].append(link("c", "a"))),
        "/lane_graph/connections/5",
        'Remove a connection of the cycle, such as "c" -> "a".',
    ),
    (
        Code.GRAPH_UNREACHABLE,
        "graph",
        graph_with(lambda graph: graph["connections"].pop(1)),
        "/lane_graph/stages/1",
        'Add a connection {"from": ..., "to": "b"}, or remove "b".',
    ),
    (
        Code.GRAPH_DEAD_END,
        "graph",
        graph_with(lambda graph: graph["connections"].pop(3)),
        "/lane_graph/stages/1",
        'Add a connection {"from": "b", "to": ...}, or remove "b".',
    ),
    (
        Code.GRAPH_LANE_FEATURE,
        "graph",
        graph_with(lambda graph: graph["connections"][0].update(lane={"kind": "journal"})),
        "/lane_graph/connections/0/lane/kind",
        'Add "journal" to lane_graph.features.',
    ),
    (
        Code.GRAPH_SLOTS_CAPACITY,
        "graph",
        graph_with(lambda graph: graph["connections"][0].update(lane={"kind": "sequenced_slots"})),
        "/lane_graph/connections/0/lane/capacity",
        'Add "capacity": a whole number from 1 to 1048576, such as 1024.',
    ),
    (
        Code.GRAPH_SLOTS_CAPACITY,
        "graph",
        graph_with(lambda g: g["connections"][0].update(lane={"kind": "sequenced_slots", "capacity": 0})),
        "/lane_graph/connections/0/lane/capacity",
        "Write a whole number from 1 to 1048576, without quotes.",
    ),
    (
        Code.GRAPH_FANOUT_CONSUMERS,
        "graph",
        graph_with(_fan_out_to_five),
        "/lane_graph/connections/7",
        "Fan out to at most 4, or give one of the connections an events lane.",
    ),
    (
        Code.GRAPH_BOUNDARY_UNCONNECTED,
        "graph",
        graph_with(lambda graph: graph["ingress"].append("side")),
        "/lane_graph/ingress/1",
        'Add a connection {"from": "side", "to": ...}, or remove the ingress.',
    ),
    (
        Code.GRAPH_BOUNDARY_UNCONNECTED,
        "graph",
        graph_with(lambda graph: graph["egress"].append("side")),
        "/lane_graph/egress/1",
        'Add a connection {"from": ..., "to": "side"}, or remove the egress.',
    ),
    (
        Code.GRAPH_BOUNDARY_UNCONNECTED,
        "graph",
        graph_with(lambda graph: graph.pop("ingress")),
        "/lane_graph/ingress",
        'Write at least one name, such as ["in"], and connect it.',
    ),
    (
        Code.GRAPH_TOO_LARGE,
        "graph",
        graph_with(lambda graph: graph["stages"].extend(stage(f"s{n}") for n in range(4_094))),
        "/lane_graph/stages",
        "Leave at most 4,096 here; split the pipeline in two.",
    ),
    (
        Code.GRAPH_TOO_LARGE,
        "graph",
        graph_with(lambda graph: graph.update(connections=[link("a", "b")] * 16_385)),
        "/lane_graph/connections",
        "Leave at most 16,384 here; split the pipeline in two.",
    ),
    (
        Code.LOWER_ROUTER,
        "graph",
        lambda plan: None,
        "/lane_graph/stages/0",
        "Nothing to mend; to do without it, leave one outgoing connection.",
    ),
    (
        Code.LOWER_MERGE,
        "graph",
        lambda plan: None,
        "/lane_graph/egress/0",
        "Nothing to mend; to do without it, leave one incoming connection.",
    ),
    (
        Code.LOWER_BRIDGE,
        "graph",
        lambda plan: None,
        "/lane_graph/stages/0",
        "Nothing to mend; to do without it, give both sides the same kind of lane.",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}{row[3]}")
def test_each_fault_is_named_placed_and_told_how_to_mend(
    row: tuple[Code, str, Edit, str, str], request: pytest.FixtureRequest
) -> None:
    code, base, edit, pointer, hint = row
    plan = request.getfixturevalue(base)
    edit(plan)

    compilation = compile_plan(plan)

    assert (code, pointer, hint) in [(d.code, d.pointer, d.hint) for d in compilation.diagnostics]
    assert compilation.ok is code.startswith("lower.")
    assert (compilation.spec is None) is not compilation.ok


def test_every_code_has_a_row() -> None:
    assert set(Code) == {code for code, *_ in ROWS}


def test_codes_are_errors_but_what_lowering_inserts() -> None:
    for code in Code:
        assert code.severity == (Severity.INFO if code.startswith("lower.") else Severity.ERROR)


def test_all_faults_of_a_plan_come_at_once(graph: Any) -> None:
    graph["name"] = 5
    graph["lane_graph"]["stages"][0]["op"] = "noop"
    graph["lane_graph"]["connections"][3]["to"] = "nowhere"
    graph["lane_graph"]["connections"][0]["lane"] = {"kind": "journal"}
    graph["lane_graph"]["colour"] = "red"

    compilation = compile_plan(graph)

    assert [(d.code.value, d.pointer) for d in compilation.diagnostics] == [
        ("plan.schema", "/name"),
        ("plan.schema", "/lane_graph/colour"),
        ("stage.unknown_op", "/lane_graph/stages/0/op"),
        ("graph.lane_feature", "/lane_graph/connections/0/lane/kind"),
        ("graph.unknown_endpoint", "/lane_graph/connections/3/to"),
        ("graph.dead_end", "/lane_graph/stages/1"),
    ]


def test_all_faults_of_a_ring_come_at_once(ring: Any) -> None:
    ring["single_ring"] |= {"shards": 2, "producer": "mpmc", "scheduling": "work_queue"}
    ring["single_ring"]["stages"][0] = {"id": "decode"}
    ring["single_ring"]["stages"][2] = None

    compilation = compile_plan(ring)

    assert [(d.code.value, d.pointer) for d in compilation.diagnostics] == [
        ("ring.producer", "/single_ring/producer"),
        ("ring.scheduling", "/single_ring/scheduling"),
        ("plan.schema", "/single_ring/stages/0/op"),
        ("plan.schema", "/single_ring/stages/2"),
        ("ring.strict_sharded", "/single_ring/shards"),
        ("ring.shard_key_missing", "/single_ring/shard_key"),
    ]


def test_one_fault_is_not_said_twice(ring: Any, graph: Any) -> None:
    ring["single_ring"] |= {"shards": 2, "ordering": "per_key", "shard_key": 7}
    ring["single_ring"]["stages"][1]["depends_on"] = ["Décode"]
    graph["lane_graph"]["connections"][0]["lane"] = {"kind": "sequenced_slots", "capacity": None}
    graph["lane_graph"]["connections"][1] = {"from": "", "to": "é"}
    graph["lane_graph"]["features"] = None

    for plan, pointers in (
        (ring, ["/single_ring/shard_key", "/single_ring/stages/1/depends_on/0"]),
        (
            graph,
            [
                "/lane_graph/features",
                "/lane_graph/connections/0/lane/capacity",
                "/lane_graph/connections/1/from",
                "/lane_graph/connections/1/to",
            ],
        ),
    ):
        assert [d.pointer for d in compile_plan(plan).diagnostics] == pointers


def test_what_could_not_be_read_is_not_called_unconnected(graph: Any) -> None:
    graph["lane_graph"]["stages"][1] = 5
    graph["lane_graph"]["egress"] = ["out", 1]
    unread = {"/lane_graph/egress/1", "/lane_graph/stages/1"}

    assert {d.pointer for d in compile_plan(graph).diagnostics} == unread

    graph["lane_graph"]["connections"] = None
    graph["lane_graph"]["stages"] = []
    graph["lane_graph"]["egress"] = ["out"]

    assert [d.pointer for d in compile_plan(graph).diagnostics] == ["/lane_graph/connections"]


def test_an_invalid_id_can_still_be_referred_to(ring: Any) -> None:
    ring["single_ring"]["stages"][0]["id"] = "Decode"
    ring["single_ring"]["stages"][1]["depends_on"] = ["Decode"]

    assert [d.pointer for d in compile_plan(ring).diagnostics] == ["/single_ring/stages/0/id"]


def test_a_missing_target_still_checks_the_payloads(ring: Any, graph: Any) -> None:
    plan = ring | {"lane_graph": graph["lane_graph"]}
    del plan["target"]
    plan["single_ring"]["shards"] = 0
    plan["lane_graph"]["on_full"] = 0

    assert [d.pointer for d in compile_plan(plan).diagnostics] == [
        "/target",
        "/single_ring/shards",
        "/lane_graph/on_full",
    ]


def test_a_target_can_be_overridden(ring: Any, graph: Any) -> None:
    both = ring | {"name": "fan", "lane_graph": graph["lane_graph"]}

    assert compile_plan(both).target == "single_ring"
    assert compile_plan(both, target="lane_graph").spec_kv == compile_plan(graph).spec_kv
    refused = compile_plan(both, target="dag")
    assert (refused.target, [d.pointer for d in refused.diagnostics]) == (None, ["/target"])


def test_a_long_cycle_is_named_in_short(graph: Any) -> None:
    count = 3_000
    names = [f"s{number}" for number in range(count)]
    graph["lane_graph"] |= {
        "stages": [stage(name) for name in names],
        "connections": [
            link("in", "s0"),
            *(link(a, b) for a, b in zip(names, [*names[1:], "s0"], strict=True)),
            link("s5", "out"),
        ],
    }

    (cycle,) = compile_plan(graph).diagnostics

    assert cycle.message == (
        'The connections form a cycle of 3000: "s0" -> "s1" -> "s2" -> "s3" -> "s4" -> "s5" -> "s6" -> "s7" '
        '-> ... 2991 more ... -> "s2999" -> "s0".'
    )
    assert cycle.pointer == "/lane_graph/connections/3000"


def test_each_knot_is_one_cycle_and_a_self_loop_is_one(graph: Any) -> None:
    graph["lane_graph"]["connections"] += [link("a", "a"), link("b", "c"), link("c", "b")]

    cycles = [d.message for d in compile_plan(graph).diagnostics]

    assert cycles == [
        'The connections form a cycle of 1: "a" -> "a".',
        'The connections form a cycle of 2: "b" -> "c" -> "b".',
    ]


@pytest.mark.parametrize(
    "fault",
    [
        graph_with(lambda g: g.update(stages=[stage("a")] * 4_000)),
        graph_with(lambda g: g.update(stages=[stage(f"s{n}", "x") for n in range(4_000)])),
        graph_with(lambda g: g.update(connections=[link("a", f"x{n}") for n in range(4_000)])),
        graph_with(lambda g: g.update(connections=[1] * 4_000)),
        graph_with(
            lambda g: g.update(
                stages=[stage(f"s{n}") for n in range(4_000)],
                connections=[link(f"s{n}", f"s{n}") for n in range(4_000)],
            )
        ),
        lambda plan: plan.update({f"field{n}": 1 for n in range(4_000)}),
        lambda plan: plan.update(target="single_ring", single_ring={"stages": [stage("a", "x")] * 4_000}),
    ],
)
def test_a_long_list_of_faults_is_cut_and_says_so(graph: Any, fault: Edit) -> None:
    fault(graph)

    diagnostics = compile_plan(graph).diagnostics

    assert len(diagnostics) == MAX_DIAGNOSTICS
    assert diagnostics[-1].message == "There is more to say than the first 199 diagnostics shown here."
    assert diagnostics[-1].hint == "Mend these first and compile again."
    assert diagnostics[-1].severity == Severity.ERROR


def test_a_long_list_of_insertions_is_cut_and_compiles() -> None:
    names = [f"s{number}" for number in range(300)]
    plan = {
        "plan_v": 1,
        "name": "wide",
        "target": "lane_graph",
        "lane_graph": {
            "ingress": ["in"],
            "egress": ["out"],
            "features": ["journal"],
            "stages": [stage(name) for name in names],
            "connections": [
                *(link("in", name) for name in names),
                *(link(name, "out", kind="journal") for name in names),
            ],
        },
    }

    compilation = compile_plan(plan)

    assert compilation.ok
    assert len(compilation.diagnostics) == MAX_DIAGNOSTICS
    assert compilation.diagnostics[-1] == Diagnostic(
        Severity.INFO,
        Code.LOWER_BRIDGE,
        "",
        "There is more to say than the first 199 diagnostics shown here.",
        "Look at the drawing for the rest.",
    )


def test_a_diagnostic_is_plain_json(ring: Any) -> None:
    ring["single_ring"]["shards"] = "2"

    (diagnostic,) = compile_plan(ring).diagnostics

    assert diagnostic.to_json() == {
        "severity": "error",
        "code": "ring.shards",
        "pointer": "/single_ring/shards",
        "message": 'Expected the number of shards, a whole number from 1 to 1024, not "2".',
        "hint": "Write a whole number from 1 to 1024, without quotes.",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("é\ud800\n", '"\\u00e9\\ud800\\n"'),
        ("x" * 71, '"' + "x" * 67 + '..."'),
        (7, "7"),
        pytest.param(1 << 20_000, "a number of 20001 bits", id="long"),
        (float("nan"), "NaN"),
        ({}, "an object"),
        ([], "a list"),
        (b"", "a Python bytes"),
    ],
)
def test_any_value_can_be_shown_on_one_ascii_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_words_are_guessed_among_thousands() -> None:
    stages = [f"stage{number}" for number in range(4_096)]

    assert nearest("stage1234x", stages) == "stage1234"
    assert nearest("stge1234", stages) == "stage1234"
    assert nearest("other", stages) is None


def test_options_are_listed_up_to_eight() -> None:
    assert one_of(["a"]) == '"a"'
    assert one_of("abc") == '"a", "b" or "c"'
    assert one_of("abcdefghij") == '"a", "b", "c", "d", "e", "f", "g", "h" or another'
