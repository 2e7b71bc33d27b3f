"""Replays an incident bundle: its journal through a spec, compared with what the egresses gave back then."""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from byteor_cloud.engine.compiler import PipelineSpec, SingleRing, encode, spec_hash
from byteor_cloud.engine.replay.divergence import Comparison, first
from byteor_cloud.engine.replay.incident import IncidentBundle
from byteor_cloud.engine.replay.journal import (
    BadJournal,
    Frame,
    JournalReader,
    Record,
    encode_frame,
    read_frames,
    read_record,
)
from byteor_cloud.engine.replay.machine import Machine
from byteor_cloud.engine.replay.stages import (
    Action,
    Counters,
    Effects,
    StageError,
    StageOp,
    Unsupported,
)
from byteor_cloud.engine.replay.work import MAX_RECORD, MAX_REPLAY, LimitCode, LimitExceeded, Work

_SAMPLES = 16


class Mode(StrEnum):
    """Whether side effects are only listed, or decided one by one and performed."""

    DRY_RUN = "dry_run"
    EXECUTE = "execute"


class ErrorCode(StrEnum):
    """Why a replay failed, where it was no limit (``LimitCode``)."""

    STAGE_ERROR = "stage_error"
    BAD_INPUT = "bad_input"


class Status(StrEnum):
    """How a replay ended."""

    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one replay may take; over any of them it is ``failed``, but for ``max_egress_bytes``."""

    max_actions: int = 10_000
    max_selected_bytes: int = 128 * 1024 * 1024
    max_records: int = 5_000_000  # in the whole journal, of which an index is kept in memory
    max_egress_bytes: int = 1024 * 1024  # an egress with more has no ``egress_frames``
    max_record_work: int = MAX_RECORD  # a record over it is an error of the stage that it is in
    max_work: int = MAX_REPLAY


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """What a replay gave. ``audit`` and ``result`` are JSON, filled as far as the replay got.

    ``egress_frames`` are the frames of each egress, ``None`` for one that gave too much.
    """

    status: Status
    error: str | None
    error_code: LimitCode | ErrorCode | None
    audit: dict[str, Any]
    result: dict[str, Any]
    warnings: tuple[str, ...]
    egress_frames: Mapping[str, bytes | None]


class _Failed(Exception):
    """A replay that cannot go on with what it was given, and why."""


def replay(
    bundle: IncidentBundle,
    *,
    created_unix_ms: int,
    bundle_dir: str,
    policy_env: str,
    spec: PipelineSpec | None = None,
    stage_config: Mapping[str, Any] | None = None,
    ops: Mapping[str, StageOp] | None = None,
    mode: Mode = Mode.DRY_RUN,
    effects: Effects | None = None,
    approval_provided: bool = False,
    journal_lane: str | None = None,
    last_n: int | None = None,
    limits: Limits | None = None,
) -> ReplayOutcome:
    """Run a bundle's journal, in sequence order, through a spec (default: the bundle's own).

    Never raises for what a bundle holds: that is ``failed`` with an error. ``stage_config`` is what the
    caller resolved (nothing is taken from the bundle here). ``last_n`` takes only the last records.
    ``effects`` decides on side effects and performs them; without it none happens, whatever ``mode`` says,
    which only enters the audit. ``result`` depends on nothing but the bundle's files, ``spec``,
    ``stage_config``, ``ops``, ``journal_lane``, ``last_n`` and ``limits``; only an effect that fails ends it early.
    """
    run = _Run(limits or Limits(), journal_lane)
    spec = spec or bundle.spec
    error: str | None = None
    error_code: LimitCode | ErrorCode | None = None
    try:
        run.through(bundle, spec, stage_config=stage_config, ops=ops, effects=effects, last_n=last_n)
    except LimitExceeded as stopped:
        error, error_code = str(stopped), stopped.code
    except StageError as stopped:
        error, error_code = str(stopped), ErrorCode.STAGE_ERROR
    except (Unsupported, _Failed) as stopped:
        error, error_code = str(stopped), ErrorCode.BAD_INPUT
    result = run.result()
    status = Status.FAILED if error else Status.DIVERGED if result["divergence"] else Status.SUCCEEDED
    audit = {
        "audit_v": 1,
        "created_unix_ms": created_unix_ms,
        "bundle_dir": bundle_dir,
        "spec_sha256": spec_hash(encode(spec)),
        "input": {
            "journal_lane": run.lane,
            "journal_path": run.journal_path,
            "last_n": last_n,
            "scanned_records": run.scanned_records,
            "selected_bytes": run.selected_bytes,
            "sample_sha256": run.samples,
        },
        "policy": {"env": policy_env, "approval_provided": approval_provided, "mode": str(mode)},
        "actions": [dataclasses.asdict(action) for action in run.actions],
    }
    frames = {name: None if exit.frames is None else bytes(exit.frames) for name, exit in run.exits.items()}
    return ReplayOutcome(status, error, error_code, audit, result, tuple(run.warnings), frames)


class _Exit:
    """What an egress has given: how many frames, their digest, and the frames while they are few."""

    def __init__(self, max_bytes: int) -> None:
        self.records = 0
        self.digest = hashlib.sha256()
        self.frames: bytearray | None = bytearray()
        self._max_bytes = max_bytes

    def take(self, frame: Frame) -> None:
        encoded = encode_frame(frame)
        self.records += 1
        self.digest.update(encoded)
        if self.frames is not None:
            self.frames += encoded
            if len(self.frames) > self._max_bytes:
                self.frames = None


class _Run:
    """The state of one replay, readable however far it came."""

    def __init__(self, limits: Limits, journal_lane: str | None) -> None:
        self.lane = journal_lane
        self.journal_path: str | None = None
        self.scanned_records = 0
        self.selected_bytes = 0
        self.samples: list[str] = []
        self.warnings: list[str] = []
        self.actions: Sequence[Action] = ()
        self.exits: dict[str, _Exit] = {}
        self._counters: Mapping[str, Counters] = {}
        self._comparisons: dict[str, Comparison] = {}
        self._limits = limits

    def through(
        self,
        bundle: IncidentBundle,
        spec: PipelineSpec,
        *,
        stage_config: Mapping[str, Any] | None,
        ops: Mapping[str, StageOp] | None,
        effects: Effects | None,
        last_n: int | None,
    ) -> None:
        self.lane = self.lane or _only_ingress(spec)
        machine = Machine(
            spec,
            stage_config=stage_config,
            ops=ops,
            effects=effects,
            entry=self.lane,
            max_actions=self._limits.max_actions,
            work=Work(self._limits.max_record_work, self._limits.max_work),
        )
        self.actions, self._counters = machine.actions, machine.counters
        self.exits = {name: _Exit(self._limits.max_egress_bytes) for name in machine.egresses}
        if (path := bundle.journals.get(self.lane)) is None:
            held = ", ".join(bundle.journals) or "none"
            raise _Failed(f"the bundle has no journal of lane {self.lane!r} (it has: {held})")
        self.journal_path = f"journal/{path.name}"
        with ExitStack() as files:
            journal = files.enter_context(path.open("rb"))
            index = self._select(journal, last_n)
            since = index.sequences[0] if last_n is not None and index.sequences else 0
            # Egresses in the order of the spec, then those that the spec does not have: they give nothing.
            for name in (*self.exits, *(name for name in bundle.expected if name not in self.exits)):
                if name in bundle.expected:
                    expected = files.enter_context(bundle.expected[name].open("rb"))
                    self._comparisons[name] = Comparison(name, _expected(name, expected, since))
            for offset in index.offsets:
                self._feed(machine, read_record(journal, offset))
            for comparison in self._comparisons.values():
                comparison.finish()

    def result(self) -> dict[str, Any]:
        """Return the ``result`` of the replay as JSON."""
        return {
            "egress": {
                name: {"records": exit.records, "sha256": f"sha256:{exit.digest.hexdigest()}"}
                for name, exit in self.exits.items()
            },
            "stages": {name: counters.as_json() for name, counters in self._counters.items()},
            "divergence": first(self._comparisons.values()),
        }

    def _select(self, journal: BinaryIO, last_n: int | None) -> _Index:
        """Scan the whole journal; where its last ``last_n`` records are, in sequence order."""
        if last_n is not None and last_n < 1:
            raise _Failed("last_n must be at least 1")
        found = _Index(array("Q"), array("Q"))
        sizes = array("Q")
        reader = JournalReader(journal)
        try:
            for record in reader:
                if len(sizes) == self._limits.max_records:
                    detail = f"the journal has more than {self._limits.max_records} records"
                    raise LimitExceeded(LimitCode.RECORDS, detail)
                found.sequences.append(record.sequence)
                found.offsets.append(reader.offset)
                sizes.append(len(record.payload))
        except BadJournal as error:
            raise _Failed(f"{self.journal_path}: {error}") from error
        if reader.warning:
            self.warnings.append(f"{self.journal_path}: {reader.warning}")
        self.scanned_records = len(sizes)
        # Stable: records of one sequence stay in the order of the file.
        order = sorted(range(len(sizes)), key=found.sequences.__getitem__)
        order = order if last_n is None else order[-last_n:]
        self.selected_bytes = sum(sizes[at] for at in order)
        if self.selected_bytes > self._limits.max_selected_bytes:
            detail = f"{self.selected_bytes} bytes of input, over {self._limits.max_selected_bytes}"
            raise LimitExceeded(LimitCode.INPUT, detail)
        return _Index(*(array("Q", (column[at] for at in order)) for column in (found.sequences, found.offsets)))

    def _feed(self, machine: Machine, record: Record) -> None:
        if len(self.samples) < _SAMPLES:
            self.samples.append(f"sha256:{hashlib.sha256(record.payload).hexdigest()}")
        for egress, payload in machine.feed(record):
            frame = Frame(record.sequence, payload)
            self.exits[egress].take(frame)
            if egress in self._comparisons:
                self._comparisons[egress].take(frame)


@dataclass(frozen=True, slots=True)
class _Index:
    """Where records of a journal are: two columns, as a journal may have millions of records."""

    sequences: array[int]
    offsets: array[int]


def _expected(egress: str, source: BinaryIO, since: int) -> Iterator[Frame]:
    """An egress's expected frames, without those of records before the first that was selected."""
    try:
        yield from (frame for frame in read_frames(source) if frame.sequence >= since)
    except BadJournal as error:
        raise _Failed(f"expected/{egress}.bin: {error}") from error


def _only_ingress(spec: PipelineSpec) -> str:
    if isinstance(spec.model, SingleRing):
        return spec.model.ingress
    names = [end.name for end in spec.model.endpoints if end.kind == "ingress"]
    if len(names) != 1:
        raise _Failed(f"name the journal lane: the spec has the ingresses {', '.join(names) or 'none'}")
    return names[0]
