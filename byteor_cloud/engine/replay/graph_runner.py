"""Runs a LaneGraph.

In production, the order of records in a graph depends on timing. A replay must be deterministic, so its order is fixed:

- Input records are processed one at a time, in input order. Each passes through the whole graph before the next enters.
- Every lane is a lossless queue, whatever its kind, its capacity and ``on_full``. It has at most one writer and one
  reader. The reader of a ``fanout_broadcast`` lane is a router, which makes the copies.
- Roles run in topological order (if several are ready, the first in the spec), each until its input lanes are empty. A
  stage or bridge keeps the order of its lane. A router writes each record to all its outputs, in their order. A merge
  takes one record from each of its inputs in turn, in their order, skipping empty ones.
- An egress outputs the records in its lane at the end, in the lane's order, with the sequence of the input record.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

from byteor_cloud.engine.compiler import GraphRole, LaneGraph, neighbours, topological_order
from byteor_cloud.engine.replay.journal import Record
from byteor_cloud.engine.replay.stages import Stage, StageRuntime, Unsupported
from byteor_cloud.engine.replay.work import LimitCode, LimitExceeded

MAX_DELIVERIES = 65_536
"""The maximum number of lane writes for one input record: routers in a row can multiply copies without bound."""

type _Queues = defaultdict[int, deque[bytes]]


class GraphRunner:
    """A LaneGraph that is ready to run. Records enter at the ingress or lane ``entry``, by default the only ingress."""

    def __init__(self, spec: LaneGraph, runtime: StageRuntime, entry: str | None) -> None:
        _check(spec)
        self.egresses = tuple(end.name for end in spec.endpoints if end.kind == "egress")
        self._exits = [(end.name, end.lane) for end in spec.endpoints if end.kind == "egress"]
        self._entry = _entry_lane(spec, entry)
        stages = {
            role: runtime.stage(role.name, role.op or "", _lane_names(spec, role))
            for role in spec.roles
            if role.kind == "stage"
        }
        self._roles = [(role, stages.get(role)) for role in _topological(spec.roles)]

    def feed(self, record: Record) -> list[tuple[str, bytes]]:
        """Process a record and return its outputs as pairs of egress and payload, in the spec's order of egresses."""
        queues: _Queues = defaultdict(deque)
        queues[self._entry].append(record.payload)
        left = MAX_DELIVERIES
        for role, stage in self._roles:
            for payload in _work(role, stage, queues, record.sequence):
                left -= len(role.tx)
                if left < 0:
                    detail = f"record {record.sequence} causes more than {MAX_DELIVERIES} deliveries"
                    raise LimitExceeded(LimitCode.DELIVERIES, detail)
                for lane in role.tx:
                    queues[lane].append(payload)
        return [(name, payload) for name, lane in self._exits for payload in queues[lane]]


def _work(role: GraphRole, stage: Stage | None, queues: _Queues, sequence: int) -> Iterator[bytes]:
    """Take all records from the input lanes of a role, and yield the payloads that the role makes of them."""
    for payload in _round_robin([queues.pop(lane, deque()) for lane in role.rx]):
        result = stage.process(payload, sequence) if stage else payload
        if result is not None:
            yield result


def _round_robin(lanes: list[deque[bytes]]) -> Iterator[bytes]:
    while lanes := [lane for lane in lanes if lane]:
        for lane in lanes:
            yield lane.popleft()


def _lane_names(spec: LaneGraph, role: GraphRole) -> tuple[str, str]:
    return spec.lanes[role.rx[0]].name, spec.lanes[role.tx[0]].name


def _entry_lane(spec: LaneGraph, entry: str | None) -> int:
    ingresses = {end.name: end.lane for end in spec.endpoints if end.kind == "ingress"}
    lanes = {lane.name: index for index, lane in enumerate(spec.lanes)}
    if entry in ingresses:
        return ingresses[entry]
    if entry in lanes:
        return lanes[entry]
    if len(ingresses) == 1:
        return next(iter(ingresses.values()))
    raise Unsupported(f"records must enter at one of {', '.join(ingresses) or 'no ingress'}, or at a lane")


def _check(spec: LaneGraph) -> None:
    """Raise Unsupported for a graph that violates the conditions in the module's docstring.

    The compiler never makes such a graph.
    """
    for role in spec.roles:
        one_in, one_out = len(role.rx) == 1, len(role.tx) == 1
        fits = {"stage": one_in and one_out, "bridge": one_in and one_out, "router": one_in, "merge": one_out}
        if not fits[role.kind] or not role.rx or not role.tx:
            raise Unsupported(f"role {role.name!r}: a {role.kind} with {len(role.rx)} to {len(role.tx)} lanes")
    ends = {kind: [end.lane for end in spec.endpoints if end.kind == kind] for kind in ("ingress", "egress")}
    _once(spec, "written", [*ends["ingress"], *(lane for role in spec.roles for lane in role.tx)])
    _once(spec, "read", [*ends["egress"], *(lane for role in spec.roles for lane in role.rx)])
    if len({end.name for end in spec.endpoints}) < len(spec.endpoints):
        raise Unsupported("two endpoints have the same name")


def _once(spec: LaneGraph, verb: str, lanes: Iterable[int]) -> None:
    seen: set[int] = set()
    for lane in lanes:
        if lane not in range(len(spec.lanes)):
            raise Unsupported(f"there is no lane {lane}")
        if lane in seen:
            raise Unsupported(f"lane {spec.lanes[lane].name!r} is {verb} twice")
        seen.add(lane)


def _topological(roles: tuple[GraphRole, ...]) -> list[GraphRole]:
    """Sort the roles so that each comes after the writers of its inputs, and otherwise keep the order of the spec."""
    reader = {lane: index for index, role in enumerate(roles) for lane in role.rx}
    pairs = ((index, reader[lane]) for index, role in enumerate(roles) for lane in role.tx if lane in reader)
    order = topological_order(*neighbours(len(roles), pairs))
    if len(order) < len(roles):
        raise Unsupported("the graph has a cycle")
    return [roles[index] for index in order]
