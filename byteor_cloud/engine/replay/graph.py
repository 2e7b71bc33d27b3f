"""Runs a LaneGraph. What its lanes leave open in production is fixed here, so that a replay is deterministic:

- One input record at a time, in input order, and each goes through the whole graph before the next.
- Every lane is a lossless queue, whatever its kind, its capacity and ``on_full``; each has one writer and
  one reader at most. A ``fanout_broadcast`` lane is read by its router, which makes the copies.
- Roles run in topological order (of those that are ready, the first in the spec), each until its input lanes
  are empty: a stage or bridge in the order of its lane; a router writes each record to all its outputs, in
  their order; a merge takes one record from each of its inputs in turn, in their order, passing over empty
  ones.
- An egress gives what its lane holds at the end, in the lane's order, with the input record's sequence.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator

from byteor_cloud.engine.compiler import LaneGraph, Role, neighbours, topological_order
from byteor_cloud.engine.replay.journal import Record
from byteor_cloud.engine.replay.stages import Runtime, Stage, Unsupported
from byteor_cloud.engine.replay.work import LimitCode, LimitExceeded

MAX_DELIVERIES = 65_536
"""Lane writes that one input record may cause: routers in a row multiply copies without end."""

type _Queues = defaultdict[int, deque[bytes]]


class Graph:
    """A LaneGraph ready to run, entered at an ingress or a lane (default: its only ingress)."""

    def __init__(self, spec: LaneGraph, runtime: Runtime, entry: str | None) -> None:
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
        """What a record becomes: egress and payload, egress by egress in the order of the spec."""
        queues: _Queues = defaultdict(deque)
        queues[self._entry].append(record.payload)
        left = MAX_DELIVERIES
        for role, stage in self._roles:
            for payload in _work(role, stage, queues, record.sequence):
                left -= len(role.tx)
                if left < 0:
                    detail = f"record {record.sequence} makes over {MAX_DELIVERIES} deliveries"
                    raise LimitExceeded(LimitCode.DELIVERIES, detail)
                for lane in role.tx:
                    queues[lane].append(payload)
        return [(name, payload) for name, lane in self._exits for payload in queues[lane]]


def _work(role: Role, stage: Stage | None, queues: _Queues, sequence: int) -> Iterator[bytes]:
    """What a role makes of all that its input lanes hold."""
    for payload in _round_robin([queues.pop(lane, deque()) for lane in role.rx]):
        result = stage.process(payload, sequence) if stage else payload
        if result is not None:
            yield result


def _round_robin(lanes: list[deque[bytes]]) -> Iterator[bytes]:
    while lanes := [lane for lane in lanes if lane]:
        for lane in lanes:
            yield lane.popleft()


def _lane_names(spec: LaneGraph, role: Role) -> tuple[str, str]:
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
    """Refuse a graph that the compiler cannot have made and that would not run as the docstring says."""
    for role in spec.roles:
        one_in, one_out = len(role.rx) == 1, len(role.tx) == 1
        fits = {"stage": one_in and one_out, "bridge": one_in and one_out, "router": one_in, "merge": one_out}
        if not fits[role.kind] or not role.rx or not role.tx:
            raise Unsupported(f"role {role.name!r}: a {role.kind} with {len(role.rx)} to {len(role.tx)} lanes")
    ends = {kind: [end.lane for end in spec.endpoints if end.kind == kind] for kind in ("ingress", "egress")}
    _once(spec, "written", [*ends["ingress"], *(lane for role in spec.roles for lane in role.tx)])
    _once(spec, "read", [*ends["egress"], *(lane for role in spec.roles for lane in role.rx)])
    if len({end.name for end in spec.endpoints}) < len(spec.endpoints):
        raise Unsupported("two endpoints have one name")


def _once(spec: LaneGraph, verb: str, lanes: Iterable[int]) -> None:
    seen: set[int] = set()
    for lane in lanes:
        if lane not in range(len(spec.lanes)):
            raise Unsupported(f"there is no lane {lane}")
        if lane in seen:
            raise Unsupported(f"lane {spec.lanes[lane].name!r} is {verb} twice")
        seen.add(lane)


def _topological(roles: tuple[Role, ...]) -> list[Role]:
    """The roles, each after the writers of its inputs; the order of the spec where that leaves a choice."""
    reader = {lane: index for index, role in enumerate(roles) for lane in role.rx}
    pairs = ((index, reader[lane]) for index, role in enumerate(roles) for lane in role.tx if lane in reader)
    order = topological_order(*neighbours(len(roles), pairs))
    if len(order) < len(roles):
        raise Unsupported("the graph has a cycle")
    return [roles[index] for index in order]
