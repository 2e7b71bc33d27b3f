"""Runs a pipeline spec on records, independently of clock, randomness, environment and hash order.

A ring passes each record, in input order, through its stages one after the other; a dropped record skips the remaining
stages. With several shards (``per_key``), the shard of a record is the 64-bit FNV-1a hash of its key modulo ``shards``.
Stages keep no state between records, so running all records in input order gives the same output as running each shard
separately and merging by sequence. ``RingRunner.shard_of`` returns the shard of a record.

The key is the value at the dotted path ``shard_key`` in the JSON payload: the UTF-8 bytes of a string, or the canonical
JSON of any other value. The key is empty if the payload exceeds a limit of ``payload.py``, is not strict JSON or lacks
the field, or if the value has no canonical JSON; such records share one shard and so keep their order.

The rules for graphs are in ``graph_runner.py``. In both models an output record has the sequence of its input record,
and a stage error stops the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from byteor.engine.compiler import PipelineSpec, SingleRing
from byteor.engine.replay.chain import Chain
from byteor.engine.replay.graph_runner import GraphRunner
from byteor.engine.replay.journal import Record, Row
from byteor.engine.replay.payload import MalformedPayload, Message, encode_payload, parse_payload
from byteor.engine.replay.stages import (
    Action,
    DryRun,
    Effects,
    MessageSink,
    MessageSource,
    OnDrop,
    Sink,
    StageCounters,
    StageError,
    StageFunction,
    StageRuntime,
    Unsupported,
    Watch,
)
from byteor.engine.replay.work import RecordOverLimit, WorkMeter

MAX_ACTIONS = 10_000
MAX_SHARDS = 1_024


class RingRunner:
    """A SingleRing that is ready to run."""

    has_branches = False

    def __init__(self, spec: SingleRing, runtime: StageRuntime) -> None:
        if spec.shards not in range(1, MAX_SHARDS + 1) or (spec.shards > 1 and spec.shard_key is None):
            raise Unsupported(f"a ring with {spec.shards} shards and the shard key {spec.shard_key!r} cannot run")
        self.egresses = (spec.egress,)
        self.ingresses = (spec.ingress,)
        self.entries = {spec.ingress: 0}
        self._shards, self._shard_key = spec.shards, spec.shard_key
        self._stages = [runtime.stage(stage.id, stage.op, (spec.ingress, spec.egress)) for stage in spec.stages]
        self._chain = Chain(self._stages, runtime.work)

    def connect(self, sinks: Mapping[str, Sink]) -> None:
        """Set the function that receives the output of each egress."""
        self._chain.sink = sinks[self.egresses[0]]

    def connect_messages(self, source: MessageSource, sinks: Mapping[str, MessageSink]) -> None:
        """Set the function that returns the message of a record, and the functions that receive output messages."""
        self._chain.message_source, self._chain.message_sink = source, sinks[self.egresses[0]]

    def run(self, entry: str, sequence: int, payload: bytes, ingress: str | None = None) -> None:
        """Process a record."""
        self._chain.run(sequence, payload, ingress)

    def run_rows(self, entry: str, rows: Iterable[Row], ingress: str | None = None) -> None:
        """Process many records of a journal."""
        self._chain.run_rows(rows, ingress)

    def trace(self, entry: str, payload: bytes, watch: Watch) -> list[str]:
        """Process a record stage by stage, and show each step. Returns the names of the egresses that it reached."""
        message, egress = Message(payload), self.egresses[0]
        for stage in self._stages:
            result = watch.run_stage(stage, egress, message)
            if not isinstance(result, Message):
                return []
            message = result
        watch.show("egress", egress, egress, message)
        return [egress]

    def settle(self) -> None:
        """Complete the counters of the stages."""
        self._chain.settle()

    def lane_of(self, entry: str) -> str:
        """Return the name of the lane that an ingress writes, which in a ring is the name of the ingress."""
        return entry

    def shard_of(self, payload: bytes) -> int:
        """Return the shard that processes this record in production."""
        if self._shard_key is None or self._shards == 1:
            return 0
        return fnv1a_64(shard_key_of(payload, self._shard_key)) % self._shards


def _collect(outputs: list[tuple[str, bytes]], egress: str, _sequence: int, payload: bytes) -> None:
    outputs.append((egress, payload))


class PipelineRunner:
    """A spec that is ready to run. Raises Unsupported if the spec, an op or a stage's parameters cannot run.

    ``entry`` is the ingress or lane where records enter a graph by default. ``feed`` needs it unless the graph has
    exactly one ingress. ``counters`` and ``actions`` can be read at any time.
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
        on_drop: OnDrop | None = None,
    ) -> None:
        runtime = StageRuntime(
            stage_config=stage_config or {},
            ops=ops or {},
            effects=effects or DryRun(),
            max_actions=max_actions,
            work=work,
            on_drop=on_drop,
        )
        self.model: RingRunner | GraphRunner = (
            RingRunner(spec.model, runtime) if isinstance(spec.model, SingleRing) else GraphRunner(spec.model, runtime)
        )
        self.egresses = self.model.egresses
        self.actions: list[Action] = runtime.actions
        self._counters = runtime.counters
        self._entry = entry
        self._work = runtime.work

    @property
    def counters(self) -> Mapping[str, StageCounters]:
        """The counters of each stage, in the order of the spec."""
        self.model.settle()
        return self._counters

    def connect(self, sinks: Mapping[str, Sink]) -> None:
        """Set the function that receives the output of each egress: a sequence and a payload."""
        self.model.connect(sinks)

    def connect_messages(self, source: MessageSource, sinks: Mapping[str, MessageSink]) -> None:
        """Set the function that returns the message of a record, and the functions that receive output messages.

        A message keeps its parsed JSON value, so that several runners can use it.
        """
        self.model.connect_messages(source, sinks)

    def run(self, entry: str, sequence: int, payload: bytes, ingress: str | None = None) -> None:
        """Process a record that enters at an ingress or lane; its outputs go to the connected functions.

        Drops are recorded with ``ingress``, if it is given. Raises StageError or LimitExceeded; do not run more records
        after that.
        """
        self.model.run(entry, sequence, payload, ingress)

    def run_rows(self, entry: str, rows: Iterable[Row], ingress: str | None = None) -> None:
        """Process many records of a journal, as ``run`` does."""
        self.model.run_rows(entry, rows, ingress)

    def trace(self, entry: str, payload: bytes, watch: Watch) -> list[str]:
        """Process a record and show each step. Returns the names of the egresses that it reached.

        Raises StageError or LimitExceeded.
        """
        self._work.begin_record()
        return self.model.trace(entry, payload, watch)

    def feed(self, record: Record) -> list[tuple[str, bytes]]:
        """Process an input record at the default entry, and return its outputs as pairs of egress and payload.

        Raises Unsupported if there is no default entry. Raises StageError or LimitExceeded; do not feed more records
        after that.
        """
        outputs: list[tuple[str, bytes]] = []
        self.connect({egress: partial(_collect, outputs, egress) for egress in self.egresses})
        self.run(self._default_entry(), record.sequence, record.payload)
        return outputs

    def _default_entry(self) -> str:
        ingresses = self.model.ingresses
        if self._entry is not None and self._entry in self.model.entries:
            return self._entry
        if len(ingresses) != 1:
            listed = ", ".join(ingresses) or "none"
            raise Unsupported(f"records must enter at a lane or an ingress; the ingresses are: {listed}")
        return ingresses[0]


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

    A stage error becomes part of the result. Raises Unsupported or LimitExceeded.
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
    except (MalformedPayload, UnicodeEncodeError):
        return b""


def fnv1a_64(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
