"""Drawings of a spec's graph: Graphviz text, and an SVG whose layout is computed without Graphviz."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .graph import GraphNode, SpecGraph, build_graph
from .layout import Layout, place_graph
from .spec import PipelineSpec

_DOT_SHAPES = {
    "ingress": "shape=cds",
    "egress": "shape=cds",
    "stage": 'shape=box, style="rounded"',
    "router": "shape=diamond",
    "merge": "shape=invtrapezium",
    "bridge": "shape=hexagon, style=dashed",
}
_DOT_STYLES = {
    "ring": "style=solid",
    "events": "style=solid",
    "journal": "style=bold",
    "sequenced_slots": "style=dotted",
    "fanout_broadcast": "style=dashed",
}


def to_dot(spec: PipelineSpec) -> str:
    """Write the graph of a valid spec in Graphviz's DOT language."""
    graph = build_graph(spec)
    lines = [f"digraph {_quoted(spec.name)} {{", "  rankdir=TB;", '  node [fontname="sans-serif"];']
    for node in graph.nodes:
        label = f"{node.id}\n{node.op}" if node.op else node.id
        lines.append(f"  {_quoted(node.id)} [label={_quoted(label)}, {_DOT_SHAPES[node.kind]}];")
    for edge in graph.edges:
        label = "" if edge.kind == "ring" else f", label={_quoted(edge.kind)}"
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [{_DOT_STYLES[edge.kind]}{label}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


_STYLE = """
.byteor{--paper:#fff;--ink:#1c2530;--soft:#5b6878;--stage:#eef3fb;--rim:#5d7fb3;--end:#e3f4e8;--end-rim:#2f8a57;
--in:#fff4df;--in-rim:#b5770d;--events:#66758a;--journal:#8a3fc0;--slots:#0b7d8c;--fanout:#c2462e}
@media (prefers-color-scheme:dark){.byteor{--paper:#12161c;--ink:#e8edf3;--soft:#a3b0c0;
--stage:#1d2a3d;--rim:#6f9be0;--end:#173325;--end-rim:#58c48a;--in:#382b12;--in-rim:#e0a94a;--events:#8f9fb5;--journal:#c08bf0;--slots:#4fc3d3;
--fanout:#f08a70}}
.byteor .paper{fill:var(--paper)}
.byteor text{fill:var(--ink);font:600 13px system-ui,sans-serif;text-anchor:middle}
.byteor .op{fill:var(--soft);font:11px ui-monospace,monospace}
.byteor .legend text{fill:var(--soft);font-weight:400;font-size:12px;text-anchor:start}
.byteor .name{font-size:15px;text-anchor:start}
.byteor .node>*{stroke-width:1.5}
.byteor .stage>*{fill:var(--stage);stroke:var(--rim)}
.byteor .ingress>*,.byteor .egress>*{fill:var(--end);stroke:var(--end-rim)}
.byteor .router>*,.byteor .merge>*,.byteor .bridge>*{fill:var(--in);stroke:var(--in-rim);stroke-dasharray:4 2}
.byteor .router>text,.byteor .merge>text,.byteor .bridge>text{font-size:11px;font-weight:400}
.byteor .node>text{stroke:none;fill:var(--ink)}
.byteor .node>.op{fill:var(--soft)}
.byteor .lane>*{fill:none;stroke:var(--events);stroke-width:1.6}
.byteor .lane>.head{fill:var(--events);stroke:none}
.byteor .journal>*{stroke:var(--journal);stroke-width:3.4}
.byteor .journal>.head{fill:var(--journal)}
.byteor .sequenced_slots>*{stroke:var(--slots);stroke-dasharray:2 4;stroke-width:2.6}
.byteor .sequenced_slots>.head{fill:var(--slots)}
.byteor .fanout_broadcast>*{stroke:var(--fanout);stroke-dasharray:9 4;stroke-width:2}
.byteor .fanout_broadcast>.head{fill:var(--fanout)}
"""
_MARGIN = 24.0
_HEAD = 104.0
_LABEL_LENGTH = 24
_HALF_HEIGHTS = {"stage": 21.0, "ingress": 16.0, "egress": 16.0}
_HALF_HEIGHT_OF_INSERTED = 13.0
_LEGEND_WIDTH = 700.0


def to_svg(spec: PipelineSpec) -> str:
    """Draw the graph of a valid spec as an SVG that follows the reader's light or dark theme and has no scripts."""
    graph = build_graph(spec)
    layout = place_graph(graph, [_width(node) for node in graph.nodes])
    width = max(layout.width, _LEGEND_WIDTH) + 2 * _MARGIN
    height = layout.height + _HEAD + 2 * _MARGIN
    left = (width - layout.width) / 2
    target = "lane graph" if any(edge.kind != "ring" for edge in graph.edges) else "single ring"
    stages = f"{len(spec.stages)} stage{'' if len(spec.stages) == 1 else 's'}"
    title = f"{escape(spec.name)} ({target}, {stages})"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="byteor" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{title}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>',
        f'<text class="name" x="{_MARGIN}" y="30">{title}</text>',
        *_legend(graph),
        f'<g transform="translate({left:.1f} {_HEAD + _MARGIN / 2:.1f})">',
        *_lanes(graph, layout),
        *(_node(node, *center) for node, center in zip(graph.nodes, layout.nodes, strict=True)),
        "</g></svg>\n",
    ]
    return "\n".join(parts)


def _shorten(text: str) -> str:
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"


def _label(node: GraphNode) -> str:
    """Return the shortened name of an endpoint or stage, or the kind of a role that lowering inserted."""
    return _shorten(node.id) if node.kind in _HALF_HEIGHTS else node.kind


def _half_height(node: GraphNode) -> float:
    return _HALF_HEIGHTS.get(node.kind, _HALF_HEIGHT_OF_INSERTED)


def _width(node: GraphNode) -> float:
    return max(len(_label(node)) * 8.0, len(_shorten(node.op or "")) * 6.8) + 30.0


def _node(node: GraphNode, x: float, y: float) -> str:
    title = f"{node.id} ({node.kind})" + (f": {node.op}" if node.op else "")
    texts = f'<text x="{x:.1f}" y="{y + (-3 if node.op else 4):.1f}">{escape(_label(node))}</text>'
    if node.op:
        texts += f'<text class="op" x="{x:.1f}" y="{y + 13:.1f}">{escape(_shorten(node.op))}</text>'
    shape = _shape(node.kind, x, y, _width(node) / 2, _half_height(node))
    return f'<g class="node {node.kind}"><title>{escape(title)}</title>{shape}{texts}</g>'


def _shape(kind: str, x: float, y: float, w: float, h: float) -> str:
    """Draw the outline of a node around its center. ``w`` and ``h`` are half its width and height."""
    corners = {
        "router": [(-w, 0), (-w + h, -h), (w - h, -h), (w, 0), (w - h, h), (-w + h, h)],
        "merge": [(-w, -h), (w, -h), (w - h, h), (-w + h, h)],
        "bridge": [(-w, -h), (-w + 7, 0), (-w, h), (w, h), (w - 7, 0), (w, -h)],
    }.get(kind)
    if corners:
        points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        return f'<polygon points="{points}"/>'
    radius = 7.0 if kind == "stage" else h
    return f'<rect x="{x - w:.1f}" y="{y - h:.1f}" width="{2 * w:.1f}" height="{2 * h:.1f}" rx="{radius:.1f}"/>'


def _lanes(graph: SpecGraph, layout: Layout) -> Iterator[str]:
    halves = {node.id: _half_height(node) for node in graph.nodes}
    starts = _ports(graph, layout, [edge.source for edge in graph.edges], ends=False)
    ends = _ports(graph, layout, [edge.target for edge in graph.edges], ends=True)
    for number, (edge, points) in enumerate(zip(graph.edges, layout.edges, strict=True)):
        top = (points[0][0] + starts[number], points[0][1] + halves[edge.source])
        bottom = (points[-1][0] + ends[number], points[-1][1] - halves[edge.target])
        title = " ".join(
            [
                f"{edge.lane}: {edge.kind}",
                *([f"capacity {edge.capacity}"] if edge.capacity else []),
                *([f"consumers {edge.consumers}"] if edge.consumers else []),
            ]
        )
        yield (
            f'<g class="lane {edge.kind}"><title>{escape(title)}</title>'
            f'<path d="{_curve([top, *points[1:-1], (bottom[0], bottom[1] - 6)])}"/>{_arrowhead(*bottom)}</g>'
        )


def _ports(graph: SpecGraph, layout: Layout, at: list[str], *, ends: bool) -> dict[int, float]:
    """Return each edge's offset from the center of its node, so that the edges of a node do not coincide.

    The edges of a node are sorted by the x coordinates of the adjacent points, to avoid crossings.
    """
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(at):
        groups.setdefault(name, []).append(number)
    widths = {node.id: _width(node) for node in graph.nodes}
    offsets: dict[int, float] = {}
    for name, numbers in groups.items():
        step = min(14.0, (widths[name] - 24) / len(numbers))
        numbers.sort(key=lambda number: layout.edges[number][-2 if ends else 1][0])
        for position, number in enumerate(numbers):
            offsets[number] = (position - (len(numbers) - 1) / 2) * step
    return offsets


def _curve(points: list[tuple[float, float]]) -> str:
    (x, y), *rest = points
    path = f"M{x:.1f} {y:.1f}"
    for next_x, next_y in rest:
        middle = (y + next_y) / 2
        path += f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}"
        x, y = next_x, next_y
    return path


def _arrowhead(x: float, y: float) -> str:
    return f'<path class="head" d="M{x - 4.5:.1f} {y - 8:.1f}h9l-4.5 8z"/>'


def _legend(graph: SpecGraph) -> Iterator[str]:
    """Draw the legend: the kinds of lanes and nodes that occur in the drawing."""
    x = _MARGIN
    for kind in dict.fromkeys(edge.kind for edge in graph.edges):
        name = "order in the ring" if kind == "ring" else kind
        yield (
            f'<g class="legend"><g class="lane {kind}"><path d="M{x} 54h34"/></g>'
            f'<text x="{x + 42}" y="58">{name}</text></g>'
        )
        x += 66 + 6.6 * len(name)
    x = _MARGIN
    for kind in dict.fromkeys(node.kind for node in graph.nodes):
        name = kind if kind in _HALF_HEIGHTS else f"inserted {kind}"
        yield (
            f'<g class="legend"><g class="node {kind}">{_shape(kind, x + 14, 80, 14, 8)}</g>'
            f'<text x="{x + 36}" y="84">{name}</text></g>'
        )
        x += 48 + 6.6 * len(name)
