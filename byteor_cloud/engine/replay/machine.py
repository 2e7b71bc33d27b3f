"""Runs a pipeline spec over records, deterministically: no clock, randomness, environment or hash order.

A ring takes each record, in input order, through its stages one after the other; a dropped record skips
the stages after it. With several shards (``per_key``), a record's shard is the FNV-1a 64 of its key modulo
``shards``. As stages keep nothing between records, merging the shards' outputs by input sequence is the same
as running the records in that order, which is what is done here; the shard shows in ``shard_records``.

The key is found by the dotted path ``shard_key`` in the JSON payload: a string counts as its UTF-8, any other
value as its canonical JSON. A payload that is no strict JSON or has no such field, or one without canonical JSON,
has the empty key, so that all of these share one shard and keep their order.

The graph's rules are in ``graph.py``. Whatever the model, an output record has its input's sequence, and a
stage error stops the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from byteor_cloud.engine.compiler import PipelineSpec, SingleRing
from byteor_cloud.engine.replay.graph import Graph
from byteor_cloud.engine.replay.journal import Record
from byteor_cloud.engine.replay.payload import Malformed, canonical, parse
from byteor_cloud.engine.replay.stages import (
    Action,
    Counters,
    DryRun,
    Effects,
    Runtime,
    StageError,
    StageOp,
    Unsupported,
)
from byteor_cloud.engine.replay.work import RecordOverLimit, Work

MAX_ACTIONS = 10_000
MAX_SHARDS = 1_024


class Ring:
    """A SingleRing ready to run."""

    def __init__(self, spec: SingleRing, runtime: Runtime) -> None:
        if spec.shards not in range(1, MAX_SHARDS + 1) or (spec.shards > 1 and spec.shard_key is None):
            raise Unsupported(f"a ring with {spec.shards} shards and the shard key {spec.shard_key!r}")
        self.egresses = (spec.egress,)
        self.shard_records = [0] * spec.shards
        self._shard_key = spec.shard_key
        self._stages = [runtime.stage(stage.id, stage.op, (spec.ingress, spec.egress)) for stage in spec.stages]

    def feed(self, record: Record) -> list[tuple[str, bytes]]:
        """What a record becomes: nothing, or the egress and a payload."""
        self.shard_records[self._shard(record.payload)] += 1
        payload = record.payload
        for stage in self._stages:
            result = stage.process(payload, record.sequence)
            if result is None:
                return []
            payload = result
        return [(self.egresses[0], payload)]

    def _shard(self, payload: bytes) -> int:
        shards = len(self.shard_records)
        if self._shard_key is None or shards == 1:
            return 0
        return fnv1a_64(key_of(payload, self._shard_key)) % shards


class Machine:
    """A spec made ready to run; ``Unsupported`` when it, an op or a stage's parameters cannot be run.

    ``entry`` names where the records enter a graph: an ingress or a lane, needed when it has several
    ingresses; a ring has one entry. ``counters`` and ``actions`` can be read at any time.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        *,
        stage_config: Mapping[str, Any] | None = None,
        ops: Mapping[str, StageOp] | None = None,
        effects: Effects | None = None,
        entry: str | None = None,
        max_actions: int = MAX_ACTIONS,
        work: Work | None = None,
    ) -> None:
        runtime = Runtime(
            stage_config=stage_config or {},
            ops=ops or {},
            effects=effects or DryRun(),
            max_actions=max_actions,
            work=work,
        )
        self.model: Ring | Graph = (
            Ring(spec.model, runtime) if isinstance(spec.model, SingleRing) else Graph(spec.model, runtime, entry)
        )
        self.egresses = self.model.egresses
        self.counters: Mapping[str, Counters] = runtime.counters
        self.actions: list[Action] = runtime.actions
        self._work = runtime.work

    def feed(self, record: Record) -> list[tuple[str, bytes]]:
        """What one input record becomes, in output order: egress and payload. ``StageError`` stops the run,
        ``LimitExceeded`` too; the machine is then not to be fed again.
        """
        self._work.begin_record()
        return self.model.feed(record)


@dataclass(frozen=True, slots=True)
class Output:
    """A record on an egress."""

    egress: str
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave, up to the stage error that stopped it, if one did."""

    outputs: tuple[Output, ...]
    counters: Mapping[str, Counters]
    actions: tuple[Action, ...]
    error: StageError | None


def run(
    spec: PipelineSpec,
    records: Iterable[Record],
    stage_config: Mapping[str, Any] | None = None,
    ops: Mapping[str, StageOp] | None = None,
) -> RunResult:
    """Run records, in the order given, through a spec as a dry run. ``Unsupported`` as ``Machine`` says,
    ``LimitExceeded`` over 10,000 actions; a stage error is part of the result.
    """
    machine = Machine(spec, stage_config=stage_config, ops=ops)
    outputs: list[Output] = []
    error = None
    try:
        for record in records:
            outputs += (Output(egress, record.sequence, payload) for egress, payload in machine.feed(record))
    except StageError as stopped:
        error = stopped
    return RunResult(tuple(outputs), machine.counters, tuple(machine.actions), error)


def key_of(payload: bytes, path: str) -> bytes:
    """The shard key of a payload, as the module's docstring says; empty when it has none."""
    try:
        value = parse(payload)
    except (Malformed, RecordOverLimit):
        return b""
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return b""
        value = value[name]
    try:
        return value.encode() if isinstance(value, str) else canonical(value)
    except Malformed:
        return b""


def fnv1a_64(data: bytes) -> int:
    """The FNV-1a hash of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
