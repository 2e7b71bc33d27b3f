"""The graph of a spec as Graphviz text."""

from __future__ import annotations

from .graph import graph_of
from .spec import PipelineSpec

_SHAPES = {
    "ingress": "shape=cds",
    "egress": "shape=cds",
    "stage": 'shape=box, style="rounded"',
    "router": "shape=diamond",
    "merge": "shape=invtrapezium",
    "bridge": "shape=hexagon, style=dashed",
}
_STYLES = {
    "ring": "style=solid",
    "events": "style=solid",
    "journal": "style=bold",
    "sequenced_slots": "style=dotted",
    "fanout_broadcast": "style=dashed",
}


def to_dot(spec: PipelineSpec) -> str:
    """Write the graph of a spec in Graphviz's language; no attribute depends on anything but the spec."""
    graph = graph_of(spec)
    lines = [f"digraph {_quoted(spec.name)} {{", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    for node in graph.nodes:
        label = f"{node.id}\n{node.op}" if node.op else node.id
        lines.append(f"  {_quoted(node.id)} [label={_quoted(label)}, {_SHAPES[node.kind]}];")
    for edge in graph.edges:
        label = "" if edge.kind == "ring" else f", label={_quoted(edge.kind)}"
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [{_STYLES[edge.kind]}{label}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    # In Graphviz's strings a backslash before n, l, r, G, N, T, E, L or H means something else.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
