"""Lowers a checked lane graph: inserts routers, merges and bridges, and numbers the lanes and roles."""

from __future__ import annotations

from .diagnostics import Code, CompileReport, quote
from .plan import OnFull
from .spec import Endpoint, GraphLane, GraphRole, LaneGraph
from .topology import neighbors, topological_order
from .wiring import Wiring, WiringLink, WiringNode, is_fanout


def lower_wiring(wiring: Wiring, on_full: OnFull, report: CompileReport) -> LaneGraph:
    """Lower a valid wiring. Inserted roles are reported as diagnostics of severity info, up to the report's limit."""
    return _LoweringWalk(wiring, report).run(on_full)


class _LoweringWalk:
    """A walk from the ingresses through the stages to the egresses, which numbers lanes in the order of first use."""

    def __init__(self, wiring: Wiring, report: CompileReport) -> None:
        self.wiring = wiring
        self.report = report
        self.links_by_source = wiring.links_by_source()
        self.fanouts = {source for source, links in self.links_by_source.items() if is_fanout(links)}
        self.links_by_target = wiring.links_by_target()
        self.lanes: dict[str, GraphLane] = {}
        self.numbers: dict[str, int] = {}
        self.roles: list[GraphRole] = []

    def run(self, on_full: OnFull) -> LaneGraph:
        endpoints = []
        for node in self.wiring.ingresses:
            output = self._output(node)
            endpoints.append(Endpoint(node.name, "ingress", self._lane_number(output)))
            self._route(node, output)
        for node in self._stages_in_order():
            self._stage(node)
        endpoints += [
            Endpoint(node.name, "egress", self._lane_number(self._input(node))) for node in self.wiring.egresses
        ]
        return LaneGraph(on_full, tuple(self.lanes.values()), tuple(endpoints), tuple(self.roles))

    def _stages_in_order(self) -> list[WiringNode]:
        stages = self.wiring.stages
        numbers = {node.name: number for number, node in enumerate(stages)}
        pairs = [
            (numbers[link.source], numbers[link.target])
            for link in self.wiring.links
            if link.source in numbers and link.target in numbers
        ]
        return [stages[number] for number in topological_order(*neighbors(len(stages), pairs))]

    def _stage(self, node: WiringNode) -> None:
        source, target = self._input(node), self._output(node)
        written = target
        if source.kind != target.kind:
            written = GraphLane(f"{node.name}:bridge", source.kind, source.capacity, source.consumers)
        self.roles.append(
            GraphRole(node.name, "stage", (self._lane_number(source),), (self._lane_number(written),), op=node.op)
        )
        if written is not target:
            self.roles.append(
                GraphRole(written.name, "bridge", (self._lane_number(written),), (self._lane_number(target),))
            )
            self._inform(
                Code.LOWER_BRIDGE,
                node,
                f'reads a lane of kind "{source.kind}" and writes one of kind "{target.kind}"; a bridge joins them',
                "make it read and write the same kind of lane",
            )
        self._route(node, target)

    def _output(self, node: WiringNode) -> GraphLane:
        """Return the lane that a node writes, directly or through its bridge."""
        links = self.links_by_source[node.name]
        if len(links) == 1:
            return self._connection(links[0])
        if node.name in self.fanouts:
            return GraphLane(f"{node.name}:fanout", "fanout_broadcast", consumers=len(links))
        return GraphLane(f"{node.name}:out", "events")

    def _route(self, node: WiringNode, output: GraphLane) -> None:
        """Insert a router after a node with several outgoing connections."""
        links = self.links_by_source[node.name]
        if len(links) == 1:
            return
        written = tuple(self._lane_number(self._connection(link)) for link in links)
        self.roles.append(GraphRole(f"{node.name}:router", "router", (self._lane_number(output),), written))
        self._inform(
            Code.LOWER_ROUTER,
            node,
            f"has {len(links)} outgoing connections; a router copies the output to each of them",
            "keep only one outgoing connection",
        )

    def _input(self, node: WiringNode) -> GraphLane:
        """Return the lane that a node reads; with several incoming connections, insert a merge first."""
        links = self.links_by_target[node.name]
        if len(links) == 1:
            return self._connection(links[0])
        merged = GraphLane(f"{node.name}:in", "events")
        read = tuple(self._lane_number(self._connection(link)) for link in links)
        written = (self._lane_number(merged),)
        self.roles.append(GraphRole(f"{node.name}:merge", "merge", read, written, policy="round_robin"))
        self._inform(
            Code.LOWER_MERGE,
            node,
            f"has {len(links)} incoming connections; a round-robin merge joins them",
            "keep only one incoming connection",
        )
        return merged

    def _connection(self, link: WiringLink) -> GraphLane:
        name = f"{link.source}.{link.target}"
        if link.kind != "fanout_broadcast":
            return GraphLane(name, link.kind, link.capacity)
        if link.source in self.fanouts:
            return GraphLane(name, "events")
        return GraphLane(name, link.kind, consumers=1)

    def _lane_number(self, lane: GraphLane) -> int:
        """Return the number of a lane. A lane gets its number when it is first used."""
        self.lanes.setdefault(lane.name, lane)
        return self.numbers.setdefault(lane.name, len(self.numbers))

    def _inform(self, code: Code, node: WiringNode, what: str, remedy: str) -> None:
        message = f"{quote(node.name)} {what}."
        self.report.add(code, node.pointer, message, f"This is not an error. To avoid the extra role, {remedy}.")
