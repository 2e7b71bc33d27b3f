import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from byteor.engine.compiler import (
    PipelineSpec,
    RingStage,
    SingleRing,
    compile_plan,
    to_dot,
    to_svg,
)

SVG = "{http://www.w3.org/2000/svg}"


def spec_of(plan: Any) -> PipelineSpec:
    spec = compile_plan(plan).spec
    assert spec is not None
    return spec


def boxes(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Return the bounding box of each node by its id."""
    found = {}
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        title, shape = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        polygon = group.find(f"{SVG}polygon")
        if not group.get("class", "").startswith("node") or title is None:
            continue
        if polygon is not None:
            points = [tuple(map(float, point.split(","))) for point in polygon.attrib["points"].split()]
            xs, ys = zip(*points, strict=True)
        else:
            assert shape is not None
            x, y, width, height = (float(shape.attrib[name]) for name in ("x", "y", "width", "height"))
            xs, ys = (x, x + width), (y, y + height)
        found[(title.text or "").partition(" ")[0]] = (min(xs), min(ys), max(xs), max(ys))
    return found


def plan_of_forty_stages() -> dict[str, Any]:
    stages = [f"stage-{number}" for number in range(40)]
    links = [("in", "stage-0"), ("in", "stage-1")]
    links += [(stages[n // 2], stages[n]) for n in range(2, 40)]
    links += [(stages[n - 2], stages[n]) for n in range(12, 40, 5)]
    sources = {source for source, _ in links}
    links += [(stage, "out") for stage in stages if stage not in sources]
    return {
        "plan_v": 1,
        "name": "forty",
        "target": "lane_graph",
        "lane_graph": {
            "ingress": ["in"],
            "egress": ["out"],
            "stages": [{"id": stage, "op": "dataguard_check"} for stage in stages],
            "connections": [{"from": source, "to": target} for source, target in dict.fromkeys(links)],
        },
    }


@pytest.mark.parametrize("name", ["contract-ring", "contract-graph", "graph-mixed-router", "graph-direct", "40"])
def test_drawn_nodes_do_not_overlap_and_edges_lead_downward(name: str, golden: Callable[[str], Any]) -> None:
    plan = plan_of_forty_stages() if name == "40" else golden(name)
    compilation = compile_plan(plan)
    svg = to_svg(spec_of(plan))
    placed = boxes(svg)

    assert compilation.graph is not None
    assert list(placed) == [node.id for node in compilation.graph.nodes]
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(x1 > -width and x2 < width and y2 < height for x1, _, x2, y2 in placed.values())
    corners = list(placed.values())
    for index, (left, top, right, bottom) in enumerate(corners):
        for other_left, other_top, other_right, other_bottom in corners[:index]:
            assert right < other_left or other_right < left or bottom < other_top or other_bottom < top
    for edge in compilation.graph.edges:
        assert placed[edge.source][3] < placed[edge.target][1]


def test_lane_graph_drawing_marks_node_and_lane_kinds_and_has_legend(golden: Callable[[str], Any]) -> None:
    svg = to_svg(spec_of(golden("graph-mixed-router")))

    for kind in ("ingress", "egress", "stage", "router", "merge", "bridge"):
        assert f'class="node {kind}"' in svg
    for kind in ("events", "journal", "sequenced_slots", "fanout_broadcast"):
        assert f'class="lane {kind}"' in svg
        assert f">{kind}</text>" in svg
    assert "<title>a.c: sequenced_slots capacity 16</title>" in svg
    assert "<title>a.d: fanout_broadcast consumers 1</title>" in svg
    assert "@media (prefers-color-scheme:dark)" in svg
    assert ">inserted router</text>" in svg


def test_text_is_escaped_in_svg_and_dot_and_shortened_in_svg() -> None:
    op = 'exec:/bin/echo|<script>alert("&")</script>|\\n'
    ring = SingleRing(
        "in<", "out", 1, "strict", "single", "dedicated", None, (RingStage("s" * 63, op), RingStage("b", op))
    )
    spec = PipelineSpec('"><script>', ring)

    svg, dot = to_svg(spec), to_dot(spec)

    assert "<script" not in svg
    assert "in&lt;" in svg
    assert ">" + "s" * 23 + "…<" in svg
    assert ET.fromstring(svg).tag == f"{SVG}svg"
    assert 'digraph "\\"><script>" {' in dot
    assert r'[label="b\nexec:/bin/echo|<script>alert(\"&\")</script>|\\n", shape=box' in dot


def test_lane_graph_nodes_have_labels_and_shapes_in_dot_language(graph: Any) -> None:
    assert to_dot(spec_of(graph)).splitlines()[3:9] == [
        '  "in" [label="in", shape=cds];',
        '  "a" [label="a\\nidentity", shape=box, style="rounded"];',
        '  "a:bridge" [label="a:bridge", shape=hexagon, style=dashed];',
        '  "a:router" [label="a:router", shape=diamond];',
        '  "b" [label="b\\ndataguard_redact", shape=box, style="rounded"];',
        '  "c" [label="c\\nidentity", shape=box, style="rounded"];',
    ]


def test_spec_graph_is_written_as_json(golden: Callable[[str], Any]) -> None:
    assert compile_plan(golden("graph-lone-fanout")).to_json()["graph"] == {
        "nodes": [
            {"id": "in", "kind": "ingress"},
            {"id": "a", "kind": "stage", "op": "identity"},
            {"id": "b", "kind": "stage", "op": "identity"},
            {"id": "b:bridge", "kind": "bridge"},
            {"id": "out", "kind": "egress"},
        ],
        "edges": [
            {"from": "in", "to": "a", "lane": "in.a", "kind": "fanout_broadcast", "consumers": 1},
            {"from": "a", "to": "b", "lane": "a.b", "kind": "fanout_broadcast", "consumers": 1},
            {"from": "b", "to": "b:bridge", "lane": "b:bridge", "kind": "fanout_broadcast", "consumers": 1},
            {"from": "b:bridge", "to": "out", "lane": "b.out", "kind": "events"},
        ],
    }


def test_ring_graph_edges_follow_stage_dependencies(golden: Callable[[str], Any]) -> None:
    graph = compile_plan(golden("ring-diamond")).graph

    assert graph is not None
    assert [(edge.source, edge.target, edge.kind) for edge in graph.edges] == [
        ("in", "top", "ring"),
        ("top", "left", "ring"),
        ("top", "right", "ring"),
        ("left", "bottom", "ring"),
        ("right", "bottom", "ring"),
        ("bottom", "out", "ring"),
    ]


def test_lanes_are_drawn_without_bends_if_graph_would_need_too_many() -> None:
    stages = [f"s{number}" for number in range(220)]
    links = [("in", "s0"), *zip(stages, [*stages[1:], "out"], strict=True)]
    links += [(stage, "out") for stage in stages[:-1]]
    plan = {
        "plan_v": 1,
        "name": "long",
        "target": "lane_graph",
        "lane_graph": {
            "ingress": ["in"],
            "egress": ["out"],
            "stages": [{"id": stage, "op": "identity"} for stage in stages],
            "connections": [{"from": source, "to": target} for source, target in links],
        },
    }

    curves = re.findall(r'd="(M[^"]*C[^"]*)"', to_svg(spec_of(plan)))

    assert max(curve.count("C") for curve in curves) == 1
