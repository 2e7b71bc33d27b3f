"""The rules for a plan's lane graph, which are checked before the graph is lowered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from .diagnostics import Code, CompileReport, nearest_word, quote
from .lowering import lower_wiring
from .namespace import declare_names
from .ops import Ops
from .plan import MAX_CAPACITY, ConnectionPlan, Feature, GraphPlan, LanePlan
from .spec import LaneGraph
from .wiring import Wiring, WiringLink, WiringNode, check_links, check_reach

_POINTER = "/lane_graph"
_FEATURES = get_args(Feature.__value__)


def compile_graph(plan: GraphPlan, ops: Ops, report: CompileReport) -> LaneGraph | None:
    """Check a lane graph and lower it. Returns None if there is an error."""
    ingresses = tuple(_boundary(plan.ingress, "ingress"))
    egresses = tuple(_boundary(plan.egress, "egress"))
    stages = tuple(_stages(plan, ops, report))
    ends = [(node.name, node.pointer) for node in (*ingresses, *egresses)]
    names = declare_names([*ends, *((node.name, f"{node.pointer}/id") for node in stages)], report)

    # A connection may refer to a node that could not be read. Reporting an unknown name would then be wrong.
    parts = ((plan.ingress, ingresses), (plan.stages, stages), (plan.egress, egresses))
    if any(part is None or len(part) != len(nodes) for part, nodes in parts):
        return None
    connections = tuple(enumerate(plan.connections or ()))
    readable = [(index, link) for index, link in connections if link and link.source and link.target]
    links = tuple(_links(plan, readable, names, report))
    wiring = Wiring(ingresses, stages, egresses, links)
    check_links(wiring, report)
    if plan.connections is not None and len(readable) == len(connections):
        check_reach(wiring, report)
    return lower_wiring(wiring, plan.on_full, report) if report.ok and plan.on_full else None


def _boundary(names: tuple[str | None, ...] | None, side: str) -> Iterator[WiringNode]:
    for index, name in enumerate(names or ()):
        if name:
            yield WiringNode(name, f"{_POINTER}/{side}/{index}")


def _stages(plan: GraphPlan, ops: Ops, report: CompileReport) -> Iterator[WiringNode]:
    for index, stage in enumerate(plan.stages or ()):
        pointer = f"{_POINTER}/stages/{index}"
        if stage and stage.op and not report.has_diagnostic_at(f"{pointer}/op"):
            ops.check(stage.op, f"{pointer}/op", report)
        if stage and stage.id:
            yield WiringNode(stage.id, pointer, stage.op or "")


def _links(
    plan: GraphPlan, connections: list[tuple[int, ConnectionPlan]], names: dict[str, str], report: CompileReport
) -> Iterator[WiringLink]:
    """Yield the links of the connections with valid ends. Report invalid ends and lanes."""
    for index, connection in connections:
        pointer = f"{_POINTER}/connections/{index}"
        source, target, lane = connection.source or "", connection.target or "", connection.lane
        if lane and lane.kind:
            _check_lane(lane, plan, f"{pointer}/lane", report)
        has_source = _check_end(source, names, f"{pointer}/from", "egress", report)
        if _check_end(target, names, f"{pointer}/to", "ingress", report) and has_source:
            kind = lane.kind if lane and lane.kind else "events"
            yield WiringLink(source, target, pointer, kind, lane.capacity if lane else None)


def _check_end(name: str, names: dict[str, str], pointer: str, forbidden_side: str, report: CompileReport) -> bool:
    """Return whether a connection's end may be at the node ``name``, and report a fault if it may not.

    If ``pointer`` already has a diagnostic, return False without reporting another one.
    """
    if report.has_diagnostic_at(pointer):
        return False
    declared_at = names.get(name)
    if declared_at and not declared_at.startswith(f"{_POINTER}/{forbidden_side}/"):
        return True
    if declared_at:
        rule = "start at an egress" if forbidden_side == "egress" else "lead to an ingress"
        message = f"A connection cannot {rule}, and {quote(name)} is an {forbidden_side}."
        hint = "Write the id of a stage, or swap from and to."
    elif not report.is_full:
        guess = nearest_word(name, names)
        message = f"There is no ingress, stage or egress named {quote(name)}."
        hint = f"Write {quote(guess)}." if guess else "Write the name of an ingress, stage or egress of this graph."
    else:
        return False
    report.add(Code.GRAPH_UNKNOWN_ENDPOINT, pointer, message, hint)
    return False


def _check_lane(lane: LanePlan, plan: GraphPlan, pointer: str, report: CompileReport) -> None:
    kind = lane.kind
    if kind in _FEATURES and plan.features is not None and kind not in plan.features:
        report.add(
            Code.GRAPH_LANE_FEATURE,
            f"{pointer}/kind",
            f'A lane of kind "{kind}" needs the feature "{kind}", which is not enabled.',
            f'Add "{kind}" to lane_graph.features.',
        )
    capacity = f"{pointer}/capacity"
    if kind == "sequenced_slots" and lane.capacity is None and not report.has_diagnostic_at(capacity):
        report.add(
            Code.GRAPH_SLOTS_CAPACITY,
            capacity,
            "A sequenced_slots lane needs a capacity.",
            f'Add "capacity": a whole number from 1 to {MAX_CAPACITY}, such as 1024.',
        )
    if kind != "sequenced_slots" and lane.capacity is not None:
        report.add(
            Code.PLAN_SCHEMA,
            capacity,
            f"A lane of kind {kind} cannot have a capacity.",
            'Remove "capacity", or write "kind": "sequenced_slots".',
        )
