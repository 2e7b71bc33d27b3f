"""The connections of a lane graph, and the rules that apply to the graphs of both plans and specs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .diagnostics import Code, CompileReport, quote
from .plan import MAX_FANOUT_CONSUMERS, LaneKind
from .topology import find_cycles, neighbors, reachable_nodes


@dataclass(frozen=True, slots=True)
class WiringNode:
    """An ingress, an egress, a stage or an inserted role, with its pointer. Only a stage can have an op."""

    name: str
    pointer: str
    op: str = ""


@dataclass(frozen=True, slots=True)
class WiringLink:
    """A connection between two named nodes, with its pointer and the kind and capacity of its lane."""

    source: str
    target: str
    pointer: str
    kind: LaneKind = "events"
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class Wiring:
    """A graph whose links connect known nodes. No link leads to an ingress or starts at an egress."""

    ingresses: tuple[WiringNode, ...]
    stages: tuple[WiringNode, ...]
    egresses: tuple[WiringNode, ...]
    links: tuple[WiringLink, ...]

    @property
    def nodes(self) -> tuple[WiringNode, ...]:
        """All nodes. The graph algorithms identify a node by its index in this tuple."""
        return self.ingresses + self.stages + self.egresses

    def links_by_source(self) -> dict[str, list[WiringLink]]:
        """Group the links by their source, in their original order."""
        return _grouped((link.source, link) for link in self.links)

    def links_by_target(self) -> dict[str, list[WiringLink]]:
        """Group the links by their target, in their original order."""
        return _grouped((link.target, link) for link in self.links)


def _grouped(pairs: Iterable[tuple[str, WiringLink]]) -> dict[str, list[WiringLink]]:
    groups: dict[str, list[WiringLink]] = {}
    for name, link in pairs:
        groups.setdefault(name, []).append(link)
    return groups


def is_fanout(links: list[WiringLink]) -> bool:
    """Return whether the links of one source form a fan-out: several links that all have fan-out lanes."""
    return len(links) > 1 and all(link.kind == "fanout_broadcast" for link in links)


def check_links(wiring: Wiring, report: CompileReport) -> None:
    """Report faults of the links: duplicates, fan-outs with too many consumers, and cycles."""
    first: dict[tuple[str, str], WiringLink] = {}
    for link in wiring.links:
        earlier = first.setdefault((link.source, link.target), link)
        if earlier is not link:
            report.add(
                Code.GRAPH_DUPLICATE_CONNECTION,
                link.pointer,
                f"{quote(link.source)} is already connected to {quote(link.target)} at {earlier.pointer}.",
                "Remove one of the two; there can be only one connection from a node to another.",
            )
    for source, links in wiring.links_by_source().items():
        if len(links) > MAX_FANOUT_CONSUMERS and is_fanout(links):
            report.add(
                Code.GRAPH_FANOUT_CONSUMERS,
                links[MAX_FANOUT_CONSUMERS].pointer,
                f"{quote(source)} fans out to {len(links)} consumers, more than {MAX_FANOUT_CONSUMERS}.",
                f"Fan out to at most {MAX_FANOUT_CONSUMERS}, or use a router: write "
                '"lane": {"kind": "events"} in one of these connections.',
            )
    _check_cycles(wiring, first, report)


def _check_cycles(wiring: Wiring, links: dict[tuple[str, str], WiringLink], report: CompileReport) -> None:
    names = [node.name for node in wiring.nodes]
    numbers = {name: number for number, name in enumerate(names)}
    pairs = [(numbers[source], numbers[target]) for source, target in links]
    for cycle in find_cycles(*neighbors(len(names), pairs)):
        if report.is_full:
            return
        path = [quote(names[number]) for number in (*cycle, cycle[0])]
        if len(path) > 12:
            path[8:-2] = [f"... {len(path) - 10} more ..."]
        closing = links[names[cycle[-1]], names[cycle[0]]]
        report.add(
            Code.GRAPH_CYCLE,
            closing.pointer,
            f"These connections form a cycle: {' -> '.join(path)}.",
            f"Remove a connection of the cycle, such as {quote(closing.source)} -> {quote(closing.target)}.",
        )


def check_reach(wiring: Wiring, report: CompileReport) -> None:
    """Report unconnected ingresses and egresses, and stages that are not on a path from an ingress to an egress."""
    sources = {link.source for link in wiring.links}
    targets = {link.target for link in wiring.links}
    for node in wiring.ingresses:
        if node.name not in sources:
            report.add(
                Code.GRAPH_BOUNDARY_UNCONNECTED,
                node.pointer,
                f"The ingress {quote(node.name)} is not connected to a stage or egress.",
                f"Add a connection from {quote(node.name)}, or remove the ingress.",
            )
    for node in wiring.egresses:
        if node.name not in targets:
            report.add(
                Code.GRAPH_BOUNDARY_UNCONNECTED,
                node.pointer,
                f"The egress {quote(node.name)} is not connected to an ingress or stage.",
                f"Add a connection to {quote(node.name)}, or remove the egress.",
            )
    nodes = wiring.nodes
    numbers = {node.name: number for number, node in enumerate(nodes)}
    pairs = [(numbers[link.source], numbers[link.target]) for link in wiring.links]
    successors, predecessors = neighbors(len(nodes), pairs)
    after_ingress = reachable_nodes((numbers[node.name] for node in wiring.ingresses), successors)
    before_egress = reachable_nodes((numbers[node.name] for node in wiring.egresses), predecessors)
    for node in wiring.stages:
        if numbers[node.name] not in after_ingress:
            report.add(
                Code.GRAPH_UNREACHABLE,
                node.pointer,
                f"{quote(node.name)} cannot be reached from an ingress.",
                f"Add a connection to {quote(node.name)}, or remove {quote(node.name)}.",
            )
        if numbers[node.name] not in before_egress:
            report.add(
                Code.GRAPH_DEAD_END,
                node.pointer,
                f"No egress can be reached from {quote(node.name)}.",
                f"Add a connection from {quote(node.name)}, or remove {quote(node.name)}.",
            )
