"""Replays an incident bundle: runs its journals through a spec, and compares the output with the expected frames."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from typing import Any, BinaryIO

from byteor.engine.compiler import PipelineSpec, encode, spec_hash
from byteor.engine.replay.divergence import Comparison, first_divergence, settle_divergences
from byteor.engine.replay.graph_runner import GraphRunner
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.inputs import (
    MAX_COMPARED,
    BadInput,
    Progress,
    check_size,
    choose_lanes,
    expected_frames,
    open_journals,
    unfed_egresses,
)
from byteor.engine.replay.output import EgressOutput
from byteor.engine.replay.parameters import NO_PARAMETERS, stages_without_parameters
from byteor.engine.replay.runner import PipelineRunner
from byteor.engine.replay.selection import Selection
from byteor.engine.replay.stages import Action, Effects, Sink, StageError, StageFunction, Unsupported
from byteor.engine.replay.work import MAX_RECORD, MAX_REPLAY, LimitCode, LimitExceeded, WorkMeter

_BATCH = 2000  # records between two calls of the progress callback
_SAMPLES = 16  # the audit contains the hashes of the first selected records, at most this many


class ReplayMode(StrEnum):
    """Whether a replay only lists side effects, or also performs those that are allowed."""

    DRY_RUN = "dry_run"
    EXECUTE = "execute"


class ErrorCode(StrEnum):
    """Why a replay failed, unless it exceeded a limit (``LimitCode``)."""

    STAGE_ERROR = "stage_error"
    BAD_INPUT = "bad_input"


class OutcomeStatus(StrEnum):
    """The outcome of a replay."""

    SUCCEEDED = "succeeded"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """The limits of a replay. A replay that exceeds one of them fails, except for ``max_egress_bytes``."""

    max_actions: int = 10_000
    max_selected_bytes: int = 128 * 1024 * 1024
    max_records: int = 5_000_000  # in all replayed journals, whether selected or not
    max_egress_bytes: int = 1024 * 1024  # the frames of an egress with more output are not kept
    max_record_work: int = MAX_RECORD  # a record that needs more is an error of the stage that is processing it
    max_work: int = MAX_REPLAY


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """The outcome of a replay. ``audit`` and ``result`` are JSON data. They cover a failed replay up to its failure.

    ``egress_frames`` are the frames of each egress, or None for an egress with too much output. ``stopped`` is the
    stage error that stopped the replay, with the keys of ``outcome.json``: ``stage, sequence, error, ingress``.
    ``work`` is in the units of ``WorkMeter``.
    """

    status: OutcomeStatus
    error: str | None
    error_code: LimitCode | ErrorCode | None
    audit: dict[str, Any]
    result: dict[str, Any]
    warnings: tuple[str, ...]
    egress_frames: Mapping[str, bytes | None]
    stopped: Mapping[str, Any] | None
    work: int


class Cancelled(Exception):
    """Raised by a progress callback to cancel a replay. ``replay`` does not catch it."""


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
    progress: Progress | None = None,
) -> ReplayOutcome:
    """Run a bundle's journals through ``spec``, and compare the output with the bundle's expected frames.

    ``spec`` defaults to the bundle's own. ``selection.py`` defines the order of the records.

    - A fault of the bundle never raises: the outcome is then ``failed`` with an error.
    - ``stage_config`` are the parameters of the stages; the parameters in the bundle are not used.
    - ``journal_lane`` selects one ingress or lane; by default all ingresses with a journal are replayed together.
    - ``last_n`` is the number of records to select from the end; by default all records are selected.
    - ``effects`` decides on side effects and performs them. Without it, none is performed, even if ``mode`` is
      ``execute``: ``mode`` is only written to the audit.
    - ``progress`` is called while the journals are read and while their records run, and can raise ``Cancelled``.
    - ``result`` is determined by the bundle's files, ``spec``, ``stage_config``, ``ops``, ``journal_lane``, ``last_n``
      and ``limits``, except that a failing side effect stops the replay early.
    """
    run = _Run(bundle, spec or bundle.spec, limits or ReplayLimits(), journal_lane, progress or _ignore)
    error: str | None = None
    error_code: LimitCode | ErrorCode | None = None
    with ExitStack() as files:
        try:
            run.execute(files, stage_config=stage_config, ops=ops, effects=effects, last_n=last_n)
        except LimitExceeded as stopped:
            error, error_code = str(stopped), stopped.code
        except StageError as stopped:
            error, error_code = str(stopped), ErrorCode.STAGE_ERROR
        except (Unsupported, BadInput) as stopped:
            error, error_code = str(stopped), ErrorCode.BAD_INPUT
    result = run.result(error_code)
    status = (
        OutcomeStatus.FAILED if error else OutcomeStatus.DIVERGED if result["divergence"] else OutcomeStatus.SUCCEEDED
    )
    audit = {
        "audit_v": 1,
        "created_unix_ms": created_unix_ms,
        "bundle_dir": bundle_dir,
        "spec_sha256": spec_hash(encode(spec or bundle.spec)),
        "input": run.audited_input(last_n),
        "policy": {"env": policy_env, "approval_provided": approval_provided, "mode": str(mode)},
        "actions": [dataclasses.asdict(action) for action in run.actions],
    }
    frames = {name: output.frames() for name, output in run.outputs.items()}
    warnings, work = tuple(run.warnings), run.meter.total
    return ReplayOutcome(status, error, error_code, audit, result, warnings, frames, run.stopped, work)


def _ignore(_done: int, _total: int) -> None:
    """Ignore the progress of a replay."""


class _Run:
    """The state of one replay, which can also be read after the replay has failed."""

    def __init__(
        self, bundle: IncidentBundle, spec: PipelineSpec, limits: ReplayLimits, lane: str | None, progress: Progress
    ) -> None:
        self.warnings: list[str] = []
        self.stopped: dict[str, Any] | None = None
        self.outputs: dict[str, EgressOutput] = {}
        self.actions: Sequence[Action] = ()
        self.meter = WorkMeter(limits.max_record_work, limits.max_work)
        self._bundle, self._spec, self._limits = bundle, spec, limits
        self._chosen_lane = lane
        self._lanes: list[str] = []
        self._progress = progress
        self._ingresses: Sequence[str] = ()
        self._runner: PipelineRunner | None = None
        self._samples: list[str] = []
        self._scanned = self._selected_bytes = 0
        self._comparisons: dict[str, Comparison] = {}
        self._notes: list[dict[str, Any]] = []
        self._without_parameters: list[str] = []
        # By egress: how many frames are not compared, because both a selected and an unselected record have their
        # sequence. This is the number of expected or of actual frames, whichever is higher.
        self._shared: dict[str, int] = {}
        self._rank = -1
        self._ingress: str | None = None

    def execute(
        self,
        files: ExitStack,
        *,
        stage_config: Mapping[str, Any] | None,
        ops: Mapping[str, StageFunction] | None,
        effects: Effects | None,
        last_n: int | None,
    ) -> None:
        if last_n is not None and last_n < 1:
            raise BadInput("last_n must be at least 1")
        self._without_parameters = [id for id, _ in stages_without_parameters(self._spec.stages, stage_config)]
        self._runner = runner = PipelineRunner(
            self._spec,
            stage_config=stage_config,
            ops=ops,
            effects=effects,
            max_actions=self._limits.max_actions,
            work=self.meter,
        )
        self.actions = runner.actions
        self._ingresses = runner.model.ingresses
        max_bytes, egresses = self._limits.max_egress_bytes, len(runner.egresses)
        self.outputs = {name: EgressOutput(max_bytes, egresses) for name in runner.egresses}
        self._lanes, warnings = choose_lanes(self._bundle, runner, self._chosen_lane)
        self.warnings += warnings
        selection = self._select(files, last_n)
        self._prepare_comparisons(files, selection)
        runner.connect({name: self._sink(name, selection) for name in self.outputs})
        try:
            self._run_records(runner, selection)
        except (StageError, LimitExceeded):
            settle_divergences(self._comparisons.values(), selection.rows(), self._lanes)
            raise
        for comparison in self._comparisons.values():
            comparison.finish(selection.records)
        settle_divergences(self._comparisons.values(), selection.rows(), self._lanes)

    def result(self, error_code: LimitCode | ErrorCode | None) -> dict[str, Any]:
        """Return the result as JSON data."""
        counters = self._runner.counters if self._runner else {}
        return {
            "egress": {name: output.as_json() for name, output in self.outputs.items()},
            "stages": {name: each.as_json() for name, each in counters.items()},
            "divergence": first_divergence(self._comparisons.values()),
            "reproduced": self._is_reproduced(error_code),
            "notes": [
                *self._notes,
                *(_note("shared_sequence", name, count) for name, count in self._shared.items() if count),
                *self._lossless_notes(),
                # The count is the number of records that reached the stage.
                *(
                    _note(NO_PARAMETERS, id, counters[id].entered if id in counters else 0)
                    for id in self._without_parameters
                ),
            ],
        }

    def audited_input(self, last_n: int | None) -> dict[str, Any]:
        """Return the audit's entry about the input. A replay of several journals has no single lane and path."""
        lane = self._lanes[0] if len(self._lanes) == 1 else self._chosen_lane
        path = self._bundle.journals.get(lane) if lane is not None else None
        return {
            "journal_lane": lane,
            "journal_path": path and f"journal/{path.name}",
            "last_n": last_n,
            "scanned_records": self._scanned,
            "selected_bytes": self._selected_bytes,
            "sample_sha256": self._samples,
        }

    def _select(self, files: ExitStack, last_n: int | None) -> Selection:
        journals = []
        for journal in open_journals(self._bundle, self._lanes, files, self._limits.max_records, self._progress):
            self._scanned += journal.scan.records
            if journal.scan.warning:
                self.warnings.append(f"journal/{journal.path.name}: {journal.scan.warning}")
            journals.append(journal)
        selection = Selection(journals, last_n, lambda _: self._progress(0, self._scanned))
        self._selected_bytes = selection.payload_bytes
        check_size(selection, self._limits.max_selected_bytes)
        return selection

    def _prepare_comparisons(self, files: ExitStack, selection: Selection) -> None:
        """Open the expected frames. If the spec lacks an egress, the egress's frames count as missing."""
        not_compared = unfed_egresses(self._spec, self._lanes)
        names = (*self.outputs, *(name for name in self._bundle.expected if name not in self.outputs))
        for name in names:
            if (path := self._bundle.expected.get(name)) is None:
                continue
            if name not in self.outputs:
                with path.open("rb") as source:
                    # A single missing frame is enough for a divergence.
                    self._compare_with(name, source, selection, not_compared, most=1)
                continue
            if len(self._comparisons) == MAX_COMPARED:
                raise BadInput(f"more than {MAX_COMPARED} egresses have expected frames")
            self._compare_with(name, files.enter_context(path.open("rb")), selection, not_compared)

    def _compare_with(
        self, name: str, source: BinaryIO, selection: Selection, not_compared: set[str], most: int | None = None
    ) -> None:
        if name in not_compared:
            self._notes.append(_note("not_compared", name, sum(1 for _ in expected_frames(name, source))))
            return
        frames = expected_frames(name, source)
        if selection.skipped:
            self._shared[name] = sum(selection.is_shared(frame.sequence) for frame in frames)
            source.seek(0)
            frames = (frame for frame in expected_frames(name, source) if selection.is_compared(frame.sequence))
        if most is not None:
            frames = iter(list(islice(frames, most)))
        self._comparisons[name] = Comparison(name, frames, has_ranks=len(self._ingresses) > 1)

    def _sink(self, name: str, selection: Selection) -> Sink:
        output, comparison = self.outputs[name], self._comparisons.get(name)
        if comparison is None:
            return output.add
        shared = 0

        def take(sequence: int, payload: bytes) -> None:
            nonlocal shared
            output.add(sequence, payload)
            if selection.skipped and selection.is_shared(sequence):
                shared += 1
                self._shared[name] = max(self._shared[name], shared)
            else:
                comparison.compare(sequence, payload, self._rank, self._ingress)

        return take

    def _run_records(self, runner: PipelineRunner, selection: Selection) -> None:
        try:
            if len(self._ingresses) == 1:
                self._run_journal(runner, selection)
            else:
                self._run_merged(runner, selection)
        except StageError as error:
            error.ingress = self._ingress
            lane = self._ingress or self._lanes[0]
            self.stopped = {"stage": error.stage, "sequence": error.sequence, "error": error.detail, "ingress": lane}
            raise
        self._progress(selection.records, selection.records)

    def _run_journal(self, runner: PipelineRunner, selection: Selection) -> None:
        """Run the records of the only journal. Their ranks are not needed, because their sequences never decrease."""
        rows = selection.journals[0].rows(selection.skipped)
        sample = list(islice(rows, _SAMPLES))
        for _, _, _, payload in sample:
            self._add_sample(payload)
        rows = chain(sample, rows)
        for done in range(0, selection.records, _BATCH):
            self._progress(done, selection.records)
            runner.run_rows(self._lanes[0], islice(rows, _BATCH))

    def _run_merged(self, runner: PipelineRunner, selection: Selection) -> None:
        for self._rank, (number, sequence, payload) in enumerate(selection.rows()):
            if self._rank % _BATCH == 0:
                self._progress(self._rank, selection.records)
            if self._rank < _SAMPLES:
                self._add_sample(payload)
            self._ingress = self._lanes[number]
            runner.run(self._ingress, sequence, payload, self._ingress)

    def _add_sample(self, payload: bytes) -> None:
        self._samples.append(f"sha256:{hashlib.sha256(payload).hexdigest()}")

    def _is_reproduced(self, error_code: LimitCode | ErrorCode | None) -> bool | None:
        outcome = self._bundle.documents.get("outcome.json")
        if outcome is None or error_code not in (None, ErrorCode.STAGE_ERROR):
            return None
        recorded, stopped = outcome["stopped"], self.stopped
        if recorded is None or stopped is None:
            return recorded is stopped
        keys = ("stage", "sequence") if recorded.get("ingress") is None else ("stage", "sequence", "ingress")
        return all(recorded[key] == stopped[key] for key in keys)

    def _lossless_notes(self) -> list[dict[str, Any]]:
        model = self._runner.model if self._runner else None
        if not isinstance(model, GraphRunner):
            return []
        return [_note("lossless_lane", lane, model.overfull[lane]) for lane in sorted(model.overfull)]


def _note(code: str, name: str, count: int) -> dict[str, Any]:
    return {"code": code, "name": name, "count": count}
