"""Replays an incident bundle: runs its journal through a spec, and compares the output with the expected frames."""

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
from byteor_cloud.engine.replay.divergence import Comparison, first_divergence
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
from byteor_cloud.engine.replay.runner import PipelineRunner
from byteor_cloud.engine.replay.stages import (
    Action,
    Effects,
    StageCounters,
    StageError,
    StageFunction,
    Unsupported,
)
from byteor_cloud.engine.replay.work import MAX_RECORD, MAX_REPLAY, LimitCode, LimitExceeded, WorkMeter

_SAMPLES = 16


class ReplayMode(StrEnum):
    """Whether a replay only lists side effects, or decides about each and performs it."""

    DRY_RUN = "dry_run"
    EXECUTE = "execute"


class ErrorCode(StrEnum):
    """Why a replay failed, unless it exceeded a limit (``LimitCode``)."""

    STAGE_ERROR = "stage_error"
    BAD_INPUT = "bad_input"


class OutcomeStatus(StrEnum):
    """How a replay ended."""

    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """The limits of a replay. It fails when it exceeds one of them, except ``max_egress_bytes``."""

    max_actions: int = 10_000
    max_selected_bytes: int = 128 * 1024 * 1024
    max_records: int = 5_000_000  # in the whole journal, because its index is kept in memory
    max_egress_bytes: int = 1024 * 1024  # the frames of an egress with more output are not kept
    max_record_work: int = MAX_RECORD  # a record that exceeds it is an error of the stage that processes it
    max_work: int = MAX_REPLAY


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """The outcome of a replay. ``audit`` and ``result`` are JSON data. They cover a failed replay up to its failure.

    ``egress_frames`` are the frames of each egress, or None for an egress with too much output.
    """

    status: OutcomeStatus
    error: str | None
    error_code: LimitCode | ErrorCode | None
    audit: dict[str, Any]
    result: dict[str, Any]
    warnings: tuple[str, ...]
    egress_frames: Mapping[str, bytes | None]


class _BadInput(Exception):
    """The replay cannot use the bundle or an argument; the text says why."""


def replay(
    bundle: IncidentBundle,
    *,
    created_unix_ms: int,
    bundle_dir: str,
    policy_env: str,
    spec: PipelineSpec | None = None,
    stage_config: Mapping[str, Any] | None = None,
    ops: Mapping[str, StageFunction] | None = None,
    mode: ReplayMode = ReplayMode.DRY_RUN,
    effects: Effects | None = None,
    approval_provided: bool = False,
    journal_lane: str | None = None,
    last_n: int | None = None,
    limits: ReplayLimits | None = None,
) -> ReplayOutcome:
    """Run the journal of a bundle, in sequence order, through ``spec`` or else the bundle's own spec.

    - A fault of the bundle never raises; the outcome is then ``failed`` with an error.
    - ``stage_config`` are the parameters of the stages; those in the bundle are not used.
    - ``last_n`` selects only the last records.
    - ``effects`` decides about side effects and performs them. Without it none is performed, even if ``mode`` is
      ``execute``: ``mode`` is only written to the audit.
    - ``result`` is determined by the bundle's files, ``spec``, ``stage_config``, ``ops``, ``journal_lane``, ``last_n``
      and ``limits``, except that a failing side effect ends the replay early.
    """
    run = _Run(limits or ReplayLimits(), journal_lane)
    spec = spec or bundle.spec
    error: str | None = None
    error_code: LimitCode | ErrorCode | None = None
    try:
        run.execute(bundle, spec, stage_config=stage_config, ops=ops, effects=effects, last_n=last_n)
    except LimitExceeded as stopped:
        error, error_code = str(stopped), stopped.code
    except StageError as stopped:
        error, error_code = str(stopped), ErrorCode.STAGE_ERROR
    except (Unsupported, _BadInput) as stopped:
        error, error_code = str(stopped), ErrorCode.BAD_INPUT
    result = run.result()
    status = (
        OutcomeStatus.FAILED if error else OutcomeStatus.DIVERGED if result["divergence"] else OutcomeStatus.SUCCEEDED
    )
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
    frames = {name: None if output.frames is None else bytes(output.frames) for name, output in run.outputs.items()}
    return ReplayOutcome(status, error, error_code, audit, result, tuple(run.warnings), frames)


class _EgressOutput:
    """The output of an egress so far: the number of frames, their digest, and the frames unless there are too many."""

    def __init__(self, max_bytes: int) -> None:
        self.records = 0
        self.digest = hashlib.sha256()
        self.frames: bytearray | None = bytearray()
        self._max_bytes = max_bytes

    def add(self, frame: Frame) -> None:
        encoded = encode_frame(frame)
        self.records += 1
        self.digest.update(encoded)
        if self.frames is not None:
            self.frames += encoded
            if len(self.frames) > self._max_bytes:
                self.frames = None


class _Run:
    """The state of one replay, which can also be read after it failed."""

    def __init__(self, limits: ReplayLimits, journal_lane: str | None) -> None:
        self.lane = journal_lane
        self.journal_path: str | None = None
        self.scanned_records = 0
        self.selected_bytes = 0
        self.samples: list[str] = []
        self.warnings: list[str] = []
        self.actions: Sequence[Action] = ()
        self.outputs: dict[str, _EgressOutput] = {}
        self._counters: Mapping[str, StageCounters] = {}
        self._comparisons: dict[str, Comparison] = {}
        self._limits = limits

    def execute(
        self,
        bundle: IncidentBundle,
        spec: PipelineSpec,
        *,
        stage_config: Mapping[str, Any] | None,
        ops: Mapping[str, StageFunction] | None,
        effects: Effects | None,
        last_n: int | None,
    ) -> None:
        self.lane = self.lane or _only_ingress(spec)
        runner = PipelineRunner(
            spec,
            stage_config=stage_config,
            ops=ops,
            effects=effects,
            entry=self.lane,
            max_actions=self._limits.max_actions,
            work=WorkMeter(self._limits.max_record_work, self._limits.max_work),
        )
        self.actions, self._counters = runner.actions, runner.counters
        self.outputs = {name: _EgressOutput(self._limits.max_egress_bytes) for name in runner.egresses}
        if (path := bundle.journals.get(self.lane)) is None:
            lanes = ", ".join(bundle.journals) or "none"
            raise _BadInput(f"the bundle has no journal of lane {self.lane!r}; its journals are: {lanes}")
        self.journal_path = f"journal/{path.name}"
        with ExitStack() as files:
            journal = files.enter_context(path.open("rb"))
            index = self._select(journal, last_n)
            since = index.sequences[0] if last_n is not None and index.sequences else 0
            # The egresses of the spec, then expected egresses that the spec lacks, all of whose frames are missing.
            for name in (*self.outputs, *(name for name in bundle.expected if name not in self.outputs)):
                if name in bundle.expected:
                    expected = files.enter_context(bundle.expected[name].open("rb"))
                    self._comparisons[name] = Comparison(name, _expected(name, expected, since))
            for offset in index.offsets:
                self._feed(runner, read_record(journal, offset))
            for comparison in self._comparisons.values():
                comparison.finish()

    def result(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "egress": {
                name: {"records": output.records, "sha256": f"sha256:{output.digest.hexdigest()}"}
                for name, output in self.outputs.items()
            },
            "stages": {name: counters.as_json() for name, counters in self._counters.items()},
            "divergence": first_divergence(self._comparisons.values()),
        }

    def _select(self, journal: BinaryIO, last_n: int | None) -> _Index:
        """Scan the whole journal, and return where its last ``last_n`` records are, in sequence order."""
        if last_n is not None and last_n < 1:
            raise _BadInput("last_n must be at least 1")
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
            raise _BadInput(f"{self.journal_path}: {error}") from error
        if reader.warning:
            self.warnings.append(f"{self.journal_path}: {reader.warning}")
        self.scanned_records = len(sizes)
        # The sort is stable, so records with the same sequence keep their order in the file.
        order = sorted(range(len(sizes)), key=found.sequences.__getitem__)
        order = order if last_n is None else order[-last_n:]
        self.selected_bytes = sum(sizes[at] for at in order)
        if self.selected_bytes > self._limits.max_selected_bytes:
            detail = f"the input has {self.selected_bytes} bytes, more than {self._limits.max_selected_bytes}"
            raise LimitExceeded(LimitCode.INPUT, detail)
        return _Index(*(array("Q", (column[at] for at in order)) for column in (found.sequences, found.offsets)))

    def _feed(self, runner: PipelineRunner, record: Record) -> None:
        if len(self.samples) < _SAMPLES:
            self.samples.append(f"sha256:{hashlib.sha256(record.payload).hexdigest()}")
        for egress, payload in runner.feed(record):
            frame = Frame(record.sequence, payload)
            self.outputs[egress].add(frame)
            if egress in self._comparisons:
                self._comparisons[egress].compare(frame)


@dataclass(frozen=True, slots=True)
class _Index:
    """The positions of records in a journal, as two arrays, because a journal may have millions of records."""

    sequences: array[int]
    offsets: array[int]


def _expected(egress: str, source: BinaryIO, since: int) -> Iterator[Frame]:
    """Yield the expected frames of an egress, except the frames of records before the first selected record."""
    try:
        yield from (frame for frame in read_frames(source) if frame.sequence >= since)
    except BadJournal as error:
        raise _BadInput(f"expected/{egress}.bin: {error}") from error


def _only_ingress(spec: PipelineSpec) -> str:
    if isinstance(spec.model, SingleRing):
        return spec.model.ingress
    names = [end.name for end in spec.model.endpoints if end.kind == "ingress"]
    if len(names) != 1:
        raise _BadInput(f"a journal lane must be chosen; the spec has these ingresses: {', '.join(names) or 'none'}")
    return names[0]
