"""Runs a pipeline spec on records, independently of clock, randomness, environment and hash order.

A ring passes each record, in input order, through its stages one after the other; a dropped record skips the remaining
stages. With several shards (``per_key``), the shard of a record is the 64-bit FNV-1a hash of its key modulo ``shards``.
Stages keep no state between records, so running all records in input order gives the same output as running each shard
separately and merging by sequence. ``shard_records`` counts the records of each shard.

The key is the value at the dotted path ``shard_key`` in the JSON payload: the UTF-8 bytes of a string, or the canonical
JSON of any other value. The key is empty if the payload is not strict JSON or lacks the field, or if the value has no
canonical JSON; such records share one shard and so keep their order.

The rules for graphs are in ``graph_runner.py``. In both models an output record has the sequence of its input record,
and a stage error stops the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from byteor_cloud.engine.compiler import PipelineSpec, SingleRing
from byteor_cloud.engine.replay.graph_runner import GraphRunner
from byteor_cloud.engine.replay.journal import Record
from byteor_cloud.engine.replay.payload import MalformedPayload, encode_payload, parse_payload
from byteor_cloud.engine.replay.stages import (
    Action,
    DryRun,
    Effects,
    StageCounters,
    StageError,
    StageFunction,
    StageRuntime,
    Unsupported,
)
from byteor_cloud.engine.replay.work import RecordOverLimit, WorkMeter

MAX_ACTIONS = 10_000
MAX_SHARDS = 1_024


class RingRunner:
    """A SingleRing that is ready to run."""

    def __init__(self, spec: SingleRing, runtime: StageRuntime) -> None:
        if spec.shards not in range(1, MAX_SHARDS + 1) or (spec.shards > 1 and spec.shard_key is None):
            raise Unsupported(f"a ring with {spec.shards} shards and the shard key {spec.shard_key!r} cannot run")
        self.egresses = (spec.egress,)
        self.shard_records = [0] * spec.shards
        self._shard_key = spec.shard_key
        self._stages = [runtime.stage(stage.id, stage.op, (spec.ingress, spec.egress)) for stage in spec.stages]

    def feed(self, record: Record) -> list[tuple[str, bytes]]:
        """Process a record and return its output, a pair of egress and payload, or an empty list if it is dropped."""
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
        return fnv1a_64(shard_key_of(payload, self._shard_key)) % shards


class PipelineRunner:
    """A spec that is ready to run. Raises Unsupported if the spec, an op or a stage's parameters cannot run.

    ``entry`` is the ingress or lane where records enter a graph; it is required if the graph has several ingresses.
    ``counters`` and ``actions`` can be read at any time.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        *,
        stage_config: Mapping[str, Any] | None = None,
        ops: Mapping[str, StageFunction] | None = None,
        effects: Effects | None = None,
        entry: str | None = None,
        max_actions: int = MAX_ACTIONS,
        work: WorkMeter | None = None,
    ) -> None:
        runtime = StageRuntime(
            stage_config=stage_config or {},
            ops=ops or {},
            effects=effects or DryRun(),
            max_actions=max_actions,
            work=work,
        )
        self.model: RingRunner | GraphRunner = (
            RingRunner(spec.model, runtime)
            if isinstance(spec.model, SingleRing)
            else GraphRunner(spec.model, runtime, entry)
        )
        self.egresses = self.model.egresses
        self.counters: Mapping[str, StageCounters] = runtime.counters
        self.actions: list[Action] = runtime.actions
        self._work = runtime.work

    def feed(self, record: Record) -> list[tuple[str, bytes]]:
        """Process an input record and return its outputs as pairs of egress and payload.

        Raises StageError or LimitExceeded; do not feed more records after that.
        """
        self._work.begin_record()
        return self.model.feed(record)


@dataclass(frozen=True, slots=True)
class Output:
    """A record that left the pipeline at an egress."""

    egress: str
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run, up to the stage error that stopped it, if any."""

    outputs: tuple[Output, ...]
    counters: Mapping[str, StageCounters]
    actions: tuple[Action, ...]
    error: StageError | None


def run_pipeline(
    spec: PipelineSpec,
    records: Iterable[Record],
    stage_config: Mapping[str, Any] | None = None,
    ops: Mapping[str, StageFunction] | None = None,
) -> RunResult:
    """Run records through a spec in the given order, without performing side effects.

    A stage error becomes part of the result. Raises Unsupported, and LimitExceeded after 10,000 actions.
    """
    runner = PipelineRunner(spec, stage_config=stage_config, ops=ops)
    outputs: list[Output] = []
    error = None
    try:
        for record in records:
            outputs += (Output(egress, record.sequence, payload) for egress, payload in runner.feed(record))
    except StageError as stopped:
        error = stopped
    return RunResult(tuple(outputs), runner.counters, tuple(runner.actions), error)


def shard_key_of(payload: bytes, path: str) -> bytes:
    """Return the shard key of a payload, as the module's docstring defines it."""
    try:
        value = parse_payload(payload)
    except (MalformedPayload, RecordOverLimit):
        return b""
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return b""
        value = value[name]
    try:
        return value.encode() if isinstance(value, str) else encode_payload(value)
    except MalformedPayload:
        return b""


def fnv1a_64(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
