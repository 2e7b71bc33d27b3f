"""Checks the rules for a spec that was decoded. Decoding checks only the shape and the types."""

from __future__ import annotations

from .diagnostics import Code, CompileReport, Diagnostic, quote
from .kv import spec_to_json
from .namespace import declare_names
from .ops import Ops
from .plan import (
    CAPACITY,
    MAX_CONNECTIONS,
    MAX_FANOUT_CONSUMERS,
    MAX_GRAPH_STAGES,
    NAME,
    OP,
    RING,
)
from .plan_fields import PlanText
from .ring import compile_ring
from .spec import GraphLane, GraphRole, LaneGraph, PipelineSpec, SingleRing
from .wiring import Wiring, WiringLink, WiringNode, check_links, check_reach

_INSERTED = PlanText(
    expected="the name of an inserted role",
    example="decode:router",
    pattern=f"{NAME.pattern}:[a-z]+",
    max_length=80,
)
_LANE_NAME = PlanText(
    expected="the name of a lane",
    example="decode.check",
    pattern=rf"{NAME.pattern}(?:\.{NAME.pattern}|:[a-z]+)",
    max_length=127,
)


def validate_spec(spec: PipelineSpec, *, ops: Ops | None = None) -> tuple[Diagnostic, ...]:
    """Return the diagnostics of a spec. Their pointers refer to ``spec_to_json(spec)``."""
    report = CompileReport()
    NAME.read(spec.name, "/name", report)
    if isinstance(spec.model, SingleRing):
        _check_ring(spec, spec.model, ops or Ops(), report)
    else:
        _check_graph(spec.model, ops or Ops(), report)
    return report.diagnostics


def _check_ring(spec: PipelineSpec, ring: SingleRing, ops: Ops, report: CompileReport) -> None:
    payload = spec_to_json(spec)["single_ring"]
    ids = [stage.id for stage in ring.stages]
    for stage in payload["stages"]:
        # A plan has ids where a spec has indices. An index without a stage becomes an id that no stage can have.
        stage["depends_on"] = [
            ids[position] if position < len(ids) else f"#{position}" for position in stage["depends_on"]
        ]
    compile_ring(RING.read_members(payload, "/single_ring", report), ops, report)
    for index, stage in enumerate(ring.stages):
        if list(stage.depends_on) != sorted(stage.depends_on):
            report.add(
                Code.PLAN_SCHEMA,
                f"/single_ring/stages/{index}/depends_on",
                "The dependencies of a stage must be indices in increasing order.",
                f"Write {sorted(set(stage.depends_on))}.",
            )


def _check_graph(graph: LaneGraph, ops: Ops, report: CompileReport) -> None:
    for index, lane in enumerate(graph.lanes):
        _check_lane(lane, f"/lane_graph/lanes/{index}", report)
    for index, endpoint in enumerate(graph.endpoints):
        NAME.read(endpoint.name, f"/lane_graph/endpoints/{index}/name", report)
    for index, role in enumerate(graph.roles):
        _check_role(role, f"/lane_graph/roles/{index}", ops, report)
    lanes = [(lane.name, f"/lane_graph/lanes/{index}/name") for index, lane in enumerate(graph.lanes)]
    ends = [(end.name, f"/lane_graph/endpoints/{index}/name") for index, end in enumerate(graph.endpoints)]
    roles = [(role.name, f"/lane_graph/roles/{index}/name") for index, role in enumerate(graph.roles)]
    declare_names(lanes, report)
    declare_names(ends + roles, report)
    _check_size("stages", sum(role.kind == "stage" for role in graph.roles), MAX_GRAPH_STAGES, report)
    _check_size("connections", sum("." in lane.name for lane in graph.lanes), MAX_CONNECTIONS, report)
    for kind in ("ingress", "egress"):
        if not any(endpoint.kind == kind for endpoint in graph.endpoints):
            report.add(
                Code.GRAPH_BOUNDARY_UNCONNECTED,
                "/lane_graph/endpoints",
                f"There is no {kind}.",
                f"Add an endpoint of kind {kind}.",
            )
    writers, readers = _lane_ends(graph, report)
    if report.ok:
        wiring = _wiring(graph, writers, readers)
        check_links(wiring, report)
        check_reach(wiring, report)


def _check_lane(lane: GraphLane, pointer: str, report: CompileReport) -> None:
    _LANE_NAME.read(lane.name, f"{pointer}/name", report)
    if lane.kind == "sequenced_slots":
        CAPACITY.read(lane.capacity, f"{pointer}/capacity", report)
    else:
        _check_absent("capacity", lane.capacity, f"a lane of kind {lane.kind}", pointer, report)
    if lane.kind != "fanout_broadcast":
        _check_absent("consumers", lane.consumers, f"a lane of kind {lane.kind}", pointer, report)
    elif not lane.consumers or lane.consumers > MAX_FANOUT_CONSUMERS:
        report.add(
            Code.GRAPH_FANOUT_CONSUMERS,
            f"{pointer}/consumers",
            f"A fan-out has 1 to {MAX_FANOUT_CONSUMERS} consumers, not {quote(lane.consumers)}.",
            f"Write a number from 1 to {MAX_FANOUT_CONSUMERS}.",
        )


def _check_role(role: GraphRole, pointer: str, ops: Ops, report: CompileReport) -> None:
    is_stage = role.kind == "stage"
    (NAME if is_stage else _INSERTED).read(role.name, f"{pointer}/name", report)
    if not is_stage:
        _check_absent("op", role.op, f"a {role.kind}", pointer, report)
    elif (op := OP.read(role.op, f"{pointer}/op", report)) and not report.has_diagnostic_at(f"{pointer}/op"):
        ops.check(op, f"{pointer}/op", report)
    if role.kind != "merge":
        _check_absent("policy", role.policy, f"a {role.kind}", pointer, report)
    elif role.policy is None:
        report.add(Code.PLAN_SCHEMA, f"{pointer}/policy", "A merge needs a policy.", 'Write "policy": "round_robin".')
    for side, lanes, several in (("rx", role.rx, "merge"), ("tx", role.tx, "router")):
        if (len(lanes) < 2) if role.kind == several else (len(lanes) != 1):
            number = "two or more lanes" if role.kind == several else "one lane"
            report.add(
                Code.PLAN_SCHEMA,
                f"{pointer}/{side}",
                f'A {role.kind} needs {number} in "{side}", not {len(lanes)}.',
                f'Write {number} in "{side}".',
            )


def _check_absent(name: str, value: object, what: str, pointer: str, report: CompileReport) -> None:
    if value is not None:
        report.add(Code.PLAN_SCHEMA, f"{pointer}/{name}", f'"{name}" is not a field of {what}.', f'Remove "{name}".')


def _check_size(what: str, count: int, limit: int, report: CompileReport) -> None:
    if count > limit:
        report.add(
            Code.GRAPH_TOO_LARGE,
            "/lane_graph",
            f"There are {count:,} {what}, more than {limit:,}.",
            f"Keep at most {limit:,}; split a larger pipeline in two.",
        )


def _lane_ends(graph: LaneGraph, report: CompileReport) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of the writer and of the reader of each lane.

    Reports lanes that do not have exactly one of each, and indices for which there is no lane.
    """
    writes: list[tuple[int, str, str]] = []
    reads: list[tuple[int, str, str]] = []
    for index, endpoint in enumerate(graph.endpoints):
        side = writes if endpoint.kind == "ingress" else reads
        side.append((endpoint.lane, endpoint.name, f"/lane_graph/endpoints/{index}/lane"))
    for index, role in enumerate(graph.roles):
        pointer = f"/lane_graph/roles/{index}"
        writes += [(lane, role.name, f"{pointer}/tx/{number}") for number, lane in enumerate(role.tx)]
        reads += [(lane, role.name, f"{pointer}/rx/{number}") for number, lane in enumerate(role.rx)]
    return _names_by_lane("writer", writes, graph, report), _names_by_lane("reader", reads, graph, report)


def _names_by_lane(
    side: str, ends: list[tuple[int, str, str]], graph: LaneGraph, report: CompileReport
) -> dict[int, str]:
    names: dict[int, str] = {}
    for lane, name, pointer in ends:
        if lane >= len(graph.lanes):
            message = f"There is no lane {lane}. Lanes are numbered from 0, and this graph has {len(graph.lanes)}."
            report.add(Code.PLAN_SCHEMA, pointer, message, "Write the index of a lane.")
        elif lane in names:
            message = f"Lane {lane} already has the {side} {quote(names[lane])}."
            report.add(Code.PLAN_SCHEMA, pointer, message, "Write the index of another lane.")
        else:
            names[lane] = name
    for lane in range(len(graph.lanes)):
        if lane not in names:
            message = f"Lane {lane} has no {side}."
            hint = f"Remove the lane, or add a {side}."
            report.add(Code.PLAN_SCHEMA, f"/lane_graph/lanes/{lane}", message, hint)
    return names


def _wiring(graph: LaneGraph, writers: dict[int, str], readers: dict[int, str]) -> Wiring:
    """Return the wiring of a spec. Inserted roles are treated as stages, as the same rules apply to them."""
    ends = [
        (endpoint.kind, WiringNode(endpoint.name, f"/lane_graph/endpoints/{index}"))
        for index, endpoint in enumerate(graph.endpoints)
    ]
    return Wiring(
        ingresses=tuple(node for kind, node in ends if kind == "ingress"),
        stages=tuple(WiringNode(role.name, f"/lane_graph/roles/{index}") for index, role in enumerate(graph.roles)),
        egresses=tuple(node for kind, node in ends if kind == "egress"),
        links=tuple(
            WiringLink(writers[index], readers[index], f"/lane_graph/lanes/{index}", lane.kind, lane.capacity)
            for index, lane in enumerate(graph.lanes)
        ),
    )
