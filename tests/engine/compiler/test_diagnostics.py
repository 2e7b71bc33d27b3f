"""Tests of diagnostics: what causes each code, which faults are reported together, and how texts are shortened."""

from typing import Any

import pytest

from byteor.engine.compiler import MAX_DIAGNOSTICS, Code, Diagnostic, compile_plan
from byteor.engine.compiler.diagnostics import Severity, join_options, nearest_word, quote
from tests.engine.compiler.faults import FAULTS, Edit, PlanFault, graph_with, link, stage
from tests.engine.compiler.graph_faults import GRAPH_FAULTS

ROWS = [*FAULTS, *GRAPH_FAULTS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}{row[3]}")
def test_edited_plan_gets_diagnostic_with_expected_code_pointer_and_hint(
    row: PlanFault, request: pytest.FixtureRequest
) -> None:
    code, base, edit, pointer, hint = row
    plan = request.getfixturevalue(base)
    edit(plan)

    compilation = compile_plan(plan)

    assert (code, pointer, hint) in [(d.code, d.pointer, d.hint) for d in compilation.diagnostics]
    assert compilation.ok is code.startswith("lower.")
    assert (compilation.spec is None) is not compilation.ok


def test_every_diagnostic_code_has_test_plan_that_causes_it() -> None:
    assert set(Code) == {code for code, *_ in ROWS}


def test_all_diagnostic_codes_except_lowering_codes_are_errors() -> None:
    for code in Code:
        assert code.severity == (Severity.INFO if code.startswith("lower.") else Severity.ERROR)


def test_several_lane_graph_faults_are_reported_together(graph: Any) -> None:
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


def test_several_ring_faults_are_reported_together(ring: Any) -> None:
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


def test_malformed_field_is_reported_only_once(ring: Any, graph: Any) -> None:
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


def test_unreadable_nodes_or_connections_cause_no_report_of_unconnected_nodes(graph: Any) -> None:
    graph["lane_graph"]["stages"][1] = 5
    graph["lane_graph"]["egress"] = ["out", 1]
    unread = {"/lane_graph/egress/1", "/lane_graph/stages/1"}

    assert {d.pointer for d in compile_plan(graph).diagnostics} == unread

    graph["lane_graph"]["connections"] = None
    graph["lane_graph"]["stages"] = []
    graph["lane_graph"]["egress"] = ["out"]

    assert [d.pointer for d in compile_plan(graph).diagnostics] == ["/lane_graph/connections"]


def test_references_to_invalid_id_cause_no_further_diagnostic(ring: Any) -> None:
    ring["single_ring"]["stages"][0]["id"] = "Decode"
    ring["single_ring"]["stages"][1]["depends_on"] = ["Decode"]

    assert [d.pointer for d in compile_plan(ring).diagnostics] == ["/single_ring/stages/0/id"]


def test_ring_and_lane_graph_are_checked_even_if_target_is_missing(ring: Any, graph: Any) -> None:
    plan = ring | {"lane_graph": graph["lane_graph"]}
    del plan["target"]
    plan["single_ring"]["shards"] = 0
    plan["lane_graph"]["on_full"] = 0

    assert [d.pointer for d in compile_plan(plan).diagnostics] == [
        "/target",
        "/single_ring/shards",
        "/lane_graph/on_full",
    ]


def test_compile_target_can_be_overridden(ring: Any, graph: Any) -> None:
    both = ring | {"name": "fan", "lane_graph": graph["lane_graph"]}

    assert compile_plan(both).target == "single_ring"
    assert compile_plan(both, target="lane_graph").spec_kv == compile_plan(graph).spec_kv
    refused = compile_plan(both, target="dag")
    assert (refused.target, [d.pointer for d in refused.diagnostics]) == (None, ["/target"])


def test_long_cycle_message_is_shortened(graph: Any) -> None:
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
        'These connections form a cycle: "s0" -> "s1" -> "s2" -> "s3" -> "s4" -> "s5" -> "s6" -> "s7" '
        '-> ... 2991 more ... -> "s2999" -> "s0".'
    )
    assert cycle.pointer == "/lane_graph/connections/3000"


def test_cycles_without_shared_nodes_are_reported_separately(graph: Any) -> None:
    graph["lane_graph"]["connections"] += [link("a", "a"), link("b", "c"), link("c", "b")]

    cycles = [d.message for d in compile_plan(graph).diagnostics]

    assert cycles == [
        'These connections form a cycle: "a" -> "a".',
        'These connections form a cycle: "b" -> "c" -> "b".',
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
def test_long_fault_list_is_truncated_with_note(graph: Any, fault: Edit) -> None:
    fault(graph)

    diagnostics = compile_plan(graph).diagnostics

    assert len(diagnostics) == MAX_DIAGNOSTICS
    assert diagnostics[-1].message == "There are more diagnostics; only the first 199 are shown."
    assert diagnostics[-1].hint == "Fix these first and compile again."
    assert diagnostics[-1].severity == Severity.ERROR


def test_plan_with_too_many_info_diagnostics_compiles() -> None:
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
        "There are more diagnostics; only the first 199 are shown.",
        "The spec lists all inserted roles.",
    )


def test_diagnostic_is_written_as_json(ring: Any) -> None:
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
def test_quote_formats_value_as_one_ascii_line(value: object, text: str) -> None:
    assert quote(value) == text


def test_nearest_word_finds_similar_word_among_thousands() -> None:
    stages = [f"stage{number}" for number in range(4_096)]

    assert nearest_word("stage1234x", stages) == "stage1234"
    assert nearest_word("stge1234", stages) == "stage1234"
    assert nearest_word("other", stages) is None


def test_join_options_lists_at_most_eight_options() -> None:
    assert join_options(["a"]) == '"a"'
    assert join_options("abc") == '"a", "b" or "c"'
    assert join_options("abcdefghij") == '"a", "b", "c", "d", "e", "f", "g", "h" or another'
