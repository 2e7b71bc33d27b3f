"""The graph of a spec, as nodes and edges."""

from __future__ import annotations

from dataclasses import dataclass

from .diagnostics import JsonObject
from .spec import LaneGraph, PipelineSpec, SingleRing


@dataclass(frozen=True, slots=True)
class GraphNode:
    """An endpoint, a stage, or a role that lowering inserted. Only a stage has an ``op``."""

    id: str
    kind: str
    op: str | None = None

    def to_json(self) -> JsonObject:
        """Return the node as JSON data."""
        return {"id": self.id, "kind": self.kind} | ({"op": self.op} if self.op else {})


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """A lane from its writer to its reader. In a ring (kind ``ring``), the edge shows the order of two nodes."""

    source: str
    target: str
    lane: str
    kind: str
    capacity: int | None = None
    consumers: int | None = None

    def to_json(self) -> JsonObject:
        """Return the edge as JSON data."""
        parameters = {"capacity": self.capacity, "consumers": self.consumers}
        given = {name: value for name, value in parameters.items() if value is not None}
        return {"from": self.source, "to": self.target, "lane": self.lane, "kind": self.kind, **given}


@dataclass(frozen=True, slots=True)
class SpecGraph:
    """The nodes (ingresses, stages and inserted roles, egresses) and the edges, in the order of the spec."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]

    def to_json(self) -> JsonObject:
        """Return the graph as JSON data."""
        return {
            "nodes": [node.to_json() for node in self.nodes],
            "edges": [edge.to_json() for edge in self.edges],
        }


def build_graph(spec: PipelineSpec) -> SpecGraph:
    """Build the graph of a valid spec."""
    if isinstance(spec.model, SingleRing):
        return _ring_graph(spec.model)
    return _lane_graph(spec.model)


def _ring_graph(ring: SingleRing) -> SpecGraph:
    stages = ring.stages
    nodes = [GraphNode(ring.ingress, "ingress")]
    nodes += [GraphNode(stage.id, "stage", stage.op) for stage in stages]
    nodes.append(GraphNode(ring.egress, "egress"))
    needed = {position for stage in stages for position in stage.depends_on}
    pairs: list[tuple[str, str]] = []
    for stage in stages:
        pairs += [(stages[position].id, stage.id) for position in stage.depends_on]
        if not stage.depends_on:
            pairs.append((ring.ingress, stage.id))
    pairs += [(stage.id, ring.egress) for index, stage in enumerate(stages) if index not in needed]
    edges = (GraphEdge(source, target, f"{source}.{target}", "ring") for source, target in pairs)
    return SpecGraph(tuple(nodes), tuple(edges))


def _lane_graph(graph: LaneGraph) -> SpecGraph:
    writers: dict[int, str] = {}
    readers: dict[int, str] = {}
    for endpoint in graph.endpoints:
        side = writers if endpoint.kind == "ingress" else readers
        side[endpoint.lane] = endpoint.name
    for role in graph.roles:
        writers |= dict.fromkeys(role.tx, role.name)
        readers |= dict.fromkeys(role.rx, role.name)
    ingresses = [GraphNode(end.name, end.kind) for end in graph.endpoints if end.kind == "ingress"]
    egresses = [GraphNode(end.name, end.kind) for end in graph.endpoints if end.kind == "egress"]
    roles = [GraphNode(role.name, role.kind, role.op) for role in graph.roles]
    edges = [
        GraphEdge(writers[number], readers[number], lane.name, lane.kind, lane.capacity, lane.consumers)
        for number, lane in enumerate(graph.lanes)
    ]
    return SpecGraph((*ingresses, *roles, *egresses), tuple(edges))
