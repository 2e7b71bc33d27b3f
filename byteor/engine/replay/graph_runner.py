"""Runs a LaneGraph.

In production, the order of records in a graph depends on timing. A replay must be deterministic, so its order is fixed:

- Input records are processed one at a time, in input order. Each passes through the whole graph before the next enters.
- Every lane is a lossless queue, whatever its kind, its capacity and ``on_full``. It has at most one writer and one
  reader. A ``fanout_broadcast`` lane with several consumers has a router as its reader, which makes the copies.
- Roles run in topological order (if several are ready, the first in the spec), each until its input lanes are empty. A
  stage or bridge keeps the order of its lane. A router writes each record to all its outputs, in their order. A merge
  takes one record from each of its inputs in turn, in their order, skipping empty ones.
- When all roles have run, each egress outputs the records in its lane, in order, with the input record's sequence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from byteor.engine.compiler import GraphRole, LaneGraph, neighbors, topological_order
from byteor.engine.replay.chain import Chain
from byteor.engine.replay.journal import Row
from byteor.engine.replay.payload import Message
from byteor.engine.replay.stages import (
    MessageSink,
    MessageSource,
    Sink,
    Stage,
    StageRuntime,
    Unsupported,
    Watch,
    drop_output,
)
from byteor.engine.replay.work import LimitCode, LimitExceeded

MAX_DELIVERIES = 65_536
"""The maximum number of lane writes for one input record: routers in a row multiply the copies."""

type _Queues = list[deque[Message]]


@dataclass(frozen=True, slots=True)
class _Role:
    """A role that is ready to run, with the lanes it reads and writes."""

    spec: GraphRole
    stage: Stage | None
    rx: tuple[int, ...]
    tx: tuple[int, ...]


class GraphRunner:
    """A LaneGraph that is ready to run. ``entries`` maps the name of each ingress and lane to a lane index."""

    def __init__(self, spec: LaneGraph, runtime: StageRuntime) -> None:
        _check(spec)
        self.egresses = tuple(end.name for end in spec.endpoints if end.kind == "egress")
        self.overfull: dict[str, int] = {}
        """By ``sequenced_slots`` lane: the number of input records at which the lane could overflow in production.

        Lanes are counted only with the policy ``drop``.
        """
        self._exits: list[tuple[str, int, Sink]] = [
            (end.name, end.lane, drop_output) for end in spec.endpoints if end.kind == "egress"
        ]
        read = {lane for _, lane, _ in self._exits}.union(*(role.rx for role in spec.roles))
        self._unread = [lane for lane in range(len(spec.lanes)) if lane not in read]
        self._work = runtime.work
        self._lanes = spec.lanes
        self.ingresses = tuple(end.name for end in spec.endpoints if end.kind == "ingress")
        self.entries = {lane.name: index for index, lane in enumerate(spec.lanes)}
        self.entries |= {end.name: end.lane for end in spec.endpoints if end.kind == "ingress"}
        stages = {
            role: runtime.stage(role.name, role.op or "", _lane_names(spec, role))
            for role in spec.roles
            if role.kind == "stage"
        }
        self._roles = [_Role(role, stages.get(role), role.rx, role.tx) for role in _topological(spec.roles)]
        self._slots = {
            index: lane.capacity or 0
            for index, lane in enumerate(spec.lanes)
            if lane.kind == "sequenced_slots" and spec.on_full == "drop"
        }
        self._queues: _Queues = [deque() for _ in spec.lanes]
        self._readers = {lane: role for role in self._roles for lane in role.rx}
        self._chains: dict[str, Chain | None] = {}
        self._message_sinks: Mapping[str, MessageSink] | None = None
        self._message_source: MessageSource = Message

    @property
    def has_branches(self) -> bool:
        """Whether an ingress has no straight path to an egress, so that its records may have several outputs."""
        return any(self._chain(ingress) is None for ingress in self.ingresses)

    def _chain(self, entry: str) -> Chain | None:
        """Return the stages of the straight path from an entry to an egress, or None if there is no such path."""
        if entry not in self._chains:
            self._chains[entry] = self._straight_path(self.entries[entry])
        return self._chains[entry]

    def _straight_path(self, lane: int) -> Chain | None:
        sinks = {lane: sink for _, lane, sink in self._exits}
        stages: list[Stage] = []
        while lane not in sinks:
            role = self._readers.get(lane)
            if role is None or len(role.tx) != 1 or self._slots.get(role.tx[0], 1) < 1:
                return None
            if role.stage is not None:
                stages.append(role.stage)
            lane = role.tx[0]
        chain = Chain(stages, self._work, sinks[lane])
        if self._message_sinks is not None:
            [name] = [name for name, exit, _ in self._exits if exit == lane]
            chain.message_sink, chain.message_source = self._message_sinks[name], self._message_source
        return chain

    def connect(self, sinks: Mapping[str, Sink]) -> None:
        """Set the function that receives the output of each egress."""
        self._exits = [(name, lane, sinks[name]) for name, lane, _ in self._exits]
        self.settle()
        self._chains = {}

    def connect_messages(self, source: MessageSource, sinks: Mapping[str, MessageSink]) -> None:
        """Set the function that returns the message of a record, and the functions that receive output messages."""
        self._message_source, self._message_sinks = source, sinks
        self.settle()
        self._chains = {}

    def run(self, entry: str, sequence: int, payload: bytes, ingress: str | None = None) -> None:
        """Process a record. Its outputs are emitted in the order of the spec's egresses.

        Raises StageError or LimitExceeded.
        """
        if (chain := self._chain(entry)) is not None:
            chain.run(sequence, payload, ingress)
            return
        self._work.begin_record()
        queues = self._queues
        queues[self.entries[entry]].append(self._message_source(payload))
        left = MAX_DELIVERIES
        for role in self._roles:
            stage, tx = role.stage, role.tx
            for message in _taken(role.rx, queues):
                if stage is not None:
                    result = stage.process(message, sequence, ingress)
                    if type(result) is not Message:
                        continue
                    message = result  # noqa: PLW2901  the stage's output replaces its input
                left -= len(tx)
                if left < 0:
                    detail = f"record {sequence} causes more than {MAX_DELIVERIES} deliveries"
                    raise LimitExceeded(LimitCode.DELIVERIES, detail)
                for lane in tx:
                    queues[lane].append(message)
            if self._slots:
                self._count_overfull(tx)
        for name, lane, sink in self._exits:
            queue = queues[lane]
            while queue:
                message = queue.popleft()
                if self._message_sinks is None:
                    sink(sequence, message.payload)
                else:
                    self._message_sinks[name](sequence, message)
        for lane in self._unread:
            queues[lane].clear()

    def run_rows(self, entry: str, rows: Iterable[Row], ingress: str | None = None) -> None:
        """Process many records of a journal."""
        if (chain := self._chain(entry)) is not None:
            chain.run_rows(rows, ingress)
            return
        for _, sequence, _, payload in rows:
            self.run(entry, sequence, payload, ingress)

    def trace(self, entry: str, payload: bytes, watch: Watch) -> list[str]:
        """Process a record, and show its message at each stage, egress and lane that it reaches, except the first lane.

        Returns the names of the egresses that it reached. Raises StageError or LimitExceeded.
        """
        queues = self._queues
        for queue in queues:
            queue.clear()  # the previous trace leaves messages behind
        queues[self.entries[entry]].append(Message(payload))
        left = MAX_DELIVERIES
        for role in self._roles:
            names = [self._lanes[lane].name for lane in role.tx]
            for message in _taken(role.rx, queues):
                result = watch.run_stage(role.stage, names[0], message) if role.stage else message
                if not isinstance(result, Message):
                    continue
                left -= len(role.tx)
                if left < 0:
                    raise LimitExceeded(LimitCode.DELIVERIES, f"more than {MAX_DELIVERIES} deliveries")
                for lane, name in zip(role.tx, names, strict=True):
                    queues[lane].append(result)
                    watch.show("lane", name, name, result)
        reached = []
        for name, lane, _ in self._exits:
            for message in queues[lane]:
                watch.show("egress", name, self._lanes[lane].name, message)
            if queues[lane]:
                reached.append(name)
        return reached

    def lane_of(self, entry: str) -> str:
        """Return the name of the lane where records of this entry start."""
        return self._lanes[self.entries[entry]].name

    def settle(self) -> None:
        """Complete the counters of the stages."""
        for chain in self._chains.values():
            if chain is not None:
                chain.settle()

    def _count_overfull(self, lanes: tuple[int, ...]) -> None:
        for lane in lanes:
            if lane in self._slots and len(self._queues[lane]) > self._slots[lane]:
                name = self._lanes[lane].name
                self.overfull[name] = self.overfull.get(name, 0) + 1


def _taken(lanes: tuple[int, ...], queues: _Queues) -> Iterator[Message]:
    """Remove and yield all messages of some lanes: one from each lane in turn, in their order, skipping empty lanes."""
    filled = [queues[lane] for lane in lanes if queues[lane]]
    while filled:
        for queue in filled:
            yield queue.popleft()
        filled = [queue for queue in filled if queue]


def reachable(spec: LaneGraph, lane: int) -> set[str]:
    """Return the names of the egresses that records in a lane can reach."""
    lanes = {lane}
    for role in _topological(spec.roles):
        if lanes & set(role.rx):
            lanes |= set(role.tx)
    return {end.name for end in spec.endpoints if end.kind == "egress" and end.lane in lanes}


def _lane_names(spec: LaneGraph, role: GraphRole) -> tuple[str, str]:
    return spec.lanes[role.rx[0]].name, spec.lanes[role.tx[0]].name


def _check(spec: LaneGraph) -> None:
    """Raise Unsupported for a graph that cannot run. The compiler never creates such a graph."""
    for role in spec.roles:
        one_in, one_out = len(role.rx) == 1, len(role.tx) == 1
        fits = {"stage": one_in and one_out, "bridge": one_in and one_out, "router": one_in, "merge": one_out}
        if not fits[role.kind] or not role.rx or not role.tx:
            lanes = f"read {len(role.rx)} and write {len(role.tx)} lanes"
            raise Unsupported(f"role {role.name!r}: a {role.kind} cannot {lanes}")
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
    order = topological_order(*neighbors(len(roles), pairs))
    if len(order) < len(roles):
        raise Unsupported("the graph has a cycle")
    return [roles[index] for index in order]
