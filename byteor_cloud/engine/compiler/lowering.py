"""Lowering a checked lane graph: routers, merges and bridges go in, lanes and roles get their numbers."""

from __future__ import annotations

from .diagnostics import Code, Report, shown
from .plan import OnFull
from .spec import Endpoint, Lane, LaneGraph, Role
from .topology import neighbours, topological_order
from .wiring import Link, Node, Wiring, is_fanout


def lower(wiring: Wiring, on_full: OnFull, report: Report) -> LaneGraph:
    """Lower a wiring that breaks no rule; what is inserted is reported as information."""
    return _Walk(wiring, report).run(on_full)


class _Walk:
    """One walk from the ingresses over the stages to the egresses, numbering as it goes."""

    def __init__(self, wiring: Wiring, report: Report) -> None:
        self.wiring = wiring
        self.report = report
        self.leaving = wiring.leaving()
        self.fanouts = {source for source, links in self.leaving.items() if is_fanout(links)}
        self.entering = wiring.entering()
        self.lanes: dict[str, Lane] = {}
        self.numbers: dict[str, int] = {}
        self.roles: list[Role] = []

    def run(self, on_full: OnFull) -> LaneGraph:
        endpoints = []
        for node in self.wiring.ingresses:
            output = self._output(node)
            endpoints.append(Endpoint(node.name, "ingress", self._use(output)))
            self._route(node, output)
        for node in self._stages_in_order():
            self._stage(node)
        endpoints += [Endpoint(node.name, "egress", self._use(self._input(node))) for node in self.wiring.egresses]
        return LaneGraph(on_full, tuple(self.lanes.values()), tuple(endpoints), tuple(self.roles))

    def _stages_in_order(self) -> list[Node]:
        stages = self.wiring.stages
        numbers = {node.name: number for number, node in enumerate(stages)}
        pairs = [
            (numbers[link.source], numbers[link.target])
            for link in self.wiring.links
            if link.source in numbers and link.target in numbers
        ]
        return [stages[number] for number in topological_order(*neighbours(len(stages), pairs))]

    def _stage(self, node: Node) -> None:
        source, target = self._input(node), self._output(node)
        written = target
        if source.kind != target.kind:
            written = Lane(f"{node.name}:bridge", source.kind, source.capacity, source.consumers)
        self.roles.append(Role(node.name, "stage", (self._use(source),), (self._use(written),), op=node.op))
        if written is not target:
            self.roles.append(Role(written.name, "bridge", (self._use(written),), (self._use(target),)))
            self._inform(
                Code.LOWER_BRIDGE,
                node,
                f"reads {source.kind} and writes {target.kind}; a bridge joins the two kinds of lanes",
                "give both sides the same kind of lane",
            )
        self._route(node, target)

    def _output(self, node: Node) -> Lane:
        """Give the lane that a source writes, or its bridge writes for it."""
        links = self.leaving[node.name]
        if len(links) == 1:
            return self._connection(links[0])
        if node.name in self.fanouts:
            return Lane(f"{node.name}:fanout", "fanout_broadcast", consumers=len(links))
        return Lane(f"{node.name}:out", "events")

    def _route(self, node: Node, output: Lane) -> None:
        """Insert the router that spreads a source's output over its several connections."""
        links = self.leaving[node.name]
        if len(links) == 1:
            return
        written = tuple(self._use(self._connection(link)) for link in links)
        self.roles.append(Role(f"{node.name}:router", "router", (self._use(output),), written))
        self._inform(
            Code.LOWER_ROUTER,
            node,
            f"has {len(links)} outgoing connections; a router spreads its output over them",
            "leave one outgoing connection",
        )

    def _input(self, node: Node) -> Lane:
        """Give the lane that a target reads, after inserting the merge of several."""
        links = self.entering[node.name]
        if len(links) == 1:
            return self._connection(links[0])
        merged = Lane(f"{node.name}:in", "events")
        read = tuple(self._use(self._connection(link)) for link in links)
        written = (self._use(merged),)
        self.roles.append(Role(f"{node.name}:merge", "merge", read, written, policy="round_robin"))
        self._inform(
            Code.LOWER_MERGE,
            node,
            f"has {len(links)} incoming connections; a round-robin merge joins them",
            "leave one incoming connection",
        )
        return merged

    def _connection(self, link: Link) -> Lane:
        name = f"{link.source}.{link.target}"
        if link.kind != "fanout_broadcast":
            return Lane(name, link.kind, link.capacity)
        if link.source in self.fanouts:
            return Lane(name, "events")
        return Lane(name, link.kind, consumers=1)

    def _use(self, lane: Lane) -> int:
        """Number a lane at its first use."""
        self.lanes.setdefault(lane.name, lane)
        return self.numbers.setdefault(lane.name, len(self.numbers))

    def _inform(self, code: Code, node: Node, what: str, remedy: str) -> None:
        message = f"{shown(node.name)} {what}."
        self.report.add(code, node.pointer, message, f"Nothing to mend; to do without it, {remedy}.")
