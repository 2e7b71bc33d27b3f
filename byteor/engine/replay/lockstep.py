"""Runs two configurations in lockstep over the records of a capture, and groups how the candidate differs.

Both sides process the same records in the same order (``selection.py``). The outputs of a record pair by egress and by
their place among the record's outputs there, and its side effects by their place. If a stage error or a limit stops a
side, the comparison covers the records before. Only the groups are kept in memory, not the records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby, islice, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple, override

from byteor.engine.canonical import canonical
from byteor.engine.compiler import PipelineSpec, SingleRing, split_op
from byteor.engine.replay.graph_runner import reachable
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.inputs import BadInput, Progress, check_size, choose_lanes, open_journals
from byteor.engine.replay.json_difference import differing_members
from byteor.engine.replay.payload import DropReason, Message
from byteor.engine.replay.replay import ReplayLimits
from byteor.engine.replay.runner import PipelineRunner
from byteor.engine.replay.selection import Selection
from byteor.engine.replay.shown_payload import show_payload
from byteor.engine.replay.stages import Decision, DryRun, Stage, StageError, StageFunction
from byteor.engine.replay.work import LimitExceeded, WorkMeter

MAX_GROUPS = 1_000
_BATCH_RECORDS, _BATCH_BYTES = 1_000, 1024 * 1024
_EXAMPLE_BYTES = 16 * 1024  # the shown part of a payload in an example
_EXAMPLES_BYTES = 8 * 1024 * 1024  # the shown parts of all examples; later examples have no payloads


class Kind(StrEnum):
    """What differs: an output record (changed as JSON or in its bytes, missing, extra), the stop, or a side effect."""

    CHANGED = "changed"
    MISSING = "missing"
    EXTRA = "extra"
    BYTES = "bytes"
    STOP = "stop"
    ACTION = "action"


class LockstepStatus(StrEnum):
    """Whether the candidate does the same as the baseline. ``failed``: the candidate met a limit or unusable input."""

    EQUAL = "equal"
    DIFFERENT = "different"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Side:
    """A configuration: a spec, the parameters of its stages, and the functions of ops of installed packages."""

    spec: PipelineSpec
    stage_config: Mapping[str, Any] | None = None
    ops: Mapping[str, StageFunction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Differences:
    """How a candidate differs from its baseline.

    ``groups`` are JSON data, in the order of their first differences. ``more`` is the number of differences without a
    group, because there are already ``MAX_GROUPS``. ``work`` is the work of the candidate and of the baseline, in the
    units of ``WorkMeter``. ``error`` is the reason for the status ``failed``.
    """

    status: LockstepStatus
    groups: list[dict[str, Any]]
    more: int
    records: int
    work: tuple[int, int]
    error: str | None = None


class _Row(NamedTuple):
    """A selected record: its rank in merge order, the number of its journal, its sequence and its payload."""

    rank: int
    journal: int
    sequence: int
    payload: bytes


class _Key(NamedTuple):
    """The properties that the differences of a group have in common."""

    egress: str | None
    kind: Kind
    pointers: tuple[str, ...] = ()
    code: str | None = None

    def id(self) -> str:
        return hashlib.sha256(canonical([self.egress, self.kind, list(self.pointers), self.code])).hexdigest()


@dataclass(slots=True)
class _Group:
    """The number of differences with the same key, and the first of them as an example."""

    row: _Row
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    stage: str | None
    count: int = 1


class _Stop(NamedTuple):
    """Where a side stopped, and why. ``stage`` is None for a limit of the whole run."""

    rank: int
    stage: str | None
    code: str
    detail: str


class _Run(DryRun):
    """One side. It keeps its outputs, side effects and drops of the current batch with the ranks of their records."""

    def __init__(self, side: Side, limits: ReplayLimits) -> None:
        self.side = side
        self.meter = WorkMeter(limits.max_record_work, limits.max_work)
        self.runner = PipelineRunner(
            side.spec,
            stage_config=side.stage_config,
            ops=side.ops,
            effects=self,
            max_actions=limits.max_actions,
            work=self.meter,
            on_drop=self._add_drop,
        )
        self.outputs: list[tuple[int, str, bytes]] = []
        self.actions: list[tuple[int, str, str]] = []
        self.drops: list[tuple[int, str, DropReason]] = []
        self.stop: _Stop | None = None
        self._rank = 0
        self._reach: dict[str, set[str]] = {}
        self.runner.connect({name: self._sink(name) for name in self.runner.egresses})

    def process(self, batch: Sequence[_Row], lanes: Sequence[str]) -> None:
        """Process a batch, up to the record that stops the side. Records of lanes that it does not have are skipped."""
        self.outputs, self.actions, self.drops = [], [], []
        for number, rows in groupby(batch, key=itemgetter(1)):
            if self.stop is not None:
                return
            if lanes[number] in self.runner.model.entries:
                self._run_rows(lanes[number], rows)

    def dropped(self, rank: int, egress: str) -> list[tuple[str, DropReason]]:
        """Return the drops of a record in stages that lead to an egress, in topological order."""
        drops = [(stage, reason) for at, stage, reason in self.drops if at == rank]
        return [drop for drop in drops if egress in self._reached(drop[0])] if drops else drops

    @override
    def decide(self, stage: str, op: str) -> Decision:
        self.actions.append((self._rank, stage, op))
        return super().decide(stage, op)

    def _run_rows(self, lane: str, rows: Iterable[_Row]) -> None:
        try:
            self.runner.run_rows(lane, self._counted(rows))
        except StageError as error:
            self.stop = _Stop(self._rank, error.stage, error.fault, error.detail)
        except LimitExceeded as error:
            self.stop = _Stop(self._rank, None, error.code, str(error))

    def _counted(self, rows: Iterable[_Row]) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield the rows one at a time. The outputs until the next one belong to the same record."""
        for self._rank, _, sequence, payload in rows:
            yield 0, sequence, 0, payload

    def _sink(self, egress: str) -> Any:
        def take(_sequence: int, payload: bytes) -> None:
            self.outputs.append((self._rank, egress, payload))

        return take

    def _add_drop(self, stage: str, reason: DropReason) -> None:
        self.drops.append((self._rank, stage, reason))

    def _reached(self, stage: str) -> set[str]:
        if stage not in self._reach:
            model = self.side.spec.model
            if isinstance(model, SingleRing):
                self._reach[stage] = {model.egress}
            else:
                [role] = [role for role in model.roles if role.name == stage]
                self._reach[stage] = reachable(model, role.tx[0])
        return self._reach[stage]


class _Groups:
    """The groups of differences, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: dict[_Key, _Group] = {}
        self._more = 0
        self._left = _EXAMPLES_BYTES

    def compare(self, old: _Run, new: _Run, rows: Mapping[int, _Row]) -> None:
        """Compare what the sides did with the records of a batch, up to the first record that stops a side."""
        stops = [run.stop for run in (old, new) if run.stop is not None]
        end = min((stop.rank for stop in stops), default=None)
        if end is None:
            if old.outputs != new.outputs:
                self._compare_outputs(old, new, rows)
            if old.actions != new.actions:
                self._compare_actions(old, new, rows)
            return
        before, after = (stop if stop is not None and stop.rank == end else None for stop in (old.stop, new.stop))
        is_same = before is not None and after is not None and before.stage == after.stage
        compared = {rank: row for rank, row in rows.items() if rank < end + is_same}
        self._compare_outputs(old, new, compared)
        self._compare_actions(old, new, compared)
        if not is_same:
            self._add_stop(before, after, rows[end])

    def _compare_outputs(self, old: _Run, new: _Run, rows: Mapping[int, _Row]) -> None:
        befores, afters = _by_record(old.outputs), _by_record(new.outputs)
        egresses = list(dict.fromkeys((*new.runner.egresses, *old.runner.egresses)))
        for rank, row in rows.items():
            before, after = befores.get(rank, []), afters.get(rank, [])
            if before == after:
                continue
            for egress in egresses:
                pairs = zip_longest(*([each for name, each in side if name == egress] for side in (before, after)))
                for one, other in pairs:
                    if one != other:
                        self._add_output(old, new, row, egress, one, other)

    def _add_output(
        self, old: _Run, new: _Run, row: _Row, egress: str, before: bytes | None, after: bytes | None
    ) -> None:
        stage = None
        if before is not None and after is not None:
            members = differing_members(before, after)
            key = _Key(egress, Kind.BYTES) if members is None else _Key(egress, Kind.CHANGED, tuple(members))
        else:
            kind, run, other = (Kind.MISSING, new, old) if after is None else (Kind.EXTRA, old, new)
            drops, elsewhere = run.dropped(row.rank, egress), other.dropped(row.rank, egress)
            stage, reason = next((drop for drop in drops if drop not in elsewhere), (None, None))
            key = _Key(egress, kind, (), reason)
        self._add(key, row, before, after, stage)

    def _compare_actions(self, old: _Run, new: _Run, rows: Mapping[int, _Row]) -> None:
        befores, afters = _by_record(old.actions), _by_record(new.actions)
        for rank, row in rows.items():
            for before, after in zip_longest(befores.get(rank, []), afters.get(rank, [])):
                if before != after:
                    stage, op = after or before
                    sides = [side and canonical({"stage": side[0], "op": side[1]}) for side in (before, after)]
                    self._add(_Key(None, Kind.ACTION, (), split_op(op)[0]), row, sides[0], sides[1], stage)

    def _add_stop(self, before: _Stop | None, after: _Stop | None, row: _Row) -> None:
        sides = [stop and canonical({"stage": stop.stage, "error": stop.detail}) for stop in (before, after)]
        stage = after.stage if after is not None else before.stage if before is not None else None
        self._add(_Key(None, Kind.STOP, (), after and after.code), row, sides[0], sides[1], stage)

    def _add(self, key: _Key, row: _Row, before: bytes | None, after: bytes | None, stage: str | None) -> None:
        if (group := self._found.get(key)) is not None:
            group.count += 1
        elif len(self._found) == MAX_GROUPS:
            self._more += 1
        else:
            self._found[key] = _Group(row._replace(payload=b""), self._shown(before), self._shown(after), stage)

    def _shown(self, payload: bytes | None) -> dict[str, Any] | None:
        if payload is None:
            return None
        shown = payload[: min(_EXAMPLE_BYTES, self._left)]
        self._left -= len(shown)
        return show_payload(shown, len(payload), has_bytes=False)

    def trace_examples(self, old: Side, new: Side, selection: Selection, limits: ReplayLimits) -> None:
        """Find the stage of each example in which the sides first differ, in a second pass over the records."""
        wanted: dict[int, list[_Group]] = {}
        for group in self._found.values():
            if group.stage is None:
                wanted.setdefault(group.row.rank, []).append(group)
        if not wanted:
            return
        before, after = _tracing(old, limits), _tracing(new, limits)
        for row in islice(_rows(selection), max(wanted) + 1):
            for group in wanted.get(row.rank, ()):
                group.stage = _first_stage(before, after, selection.journals[row.journal].lane, row.payload)

    def differences(self, selection: Selection, work: tuple[int, int]) -> Differences:
        """Return the groups as JSON data."""
        shown = [
            {
                "id": key.id(),
                "egress": key.egress,
                "kind": str(key.kind),
                "pointers": list(key.pointers),
                "code": key.code,
                "count": group.count,
                "example": {
                    "ingress": selection.journals[group.row.journal].lane,
                    "sequence": group.row.sequence,
                    "before": group.before,
                    "after": group.after,
                    "stage": group.stage,
                },
            }
            for key, group in self._found.items()
        ]
        status = LockstepStatus.DIFFERENT if shown else LockstepStatus.EQUAL
        return Differences(status, shown, self._more, selection.records, work)


class _Steps:
    """The changes of one record in a pipeline: each stage that changed or dropped it, and what came out."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, bytes | DropReason | None]] = []

    def run_stage(self, stage: Stage, lane: str, message: Message) -> Message | DropReason:
        """Run a stage. An error of the stage is a change to None."""
        try:
            result = stage.process(message, 0)
        except StageError:
            self.changes.append((stage.id, None))
            raise
        output = result.payload if isinstance(result, Message) else result
        if output != message.payload:
            self.changes.append((stage.id, output))
        return result

    def show(self, kind: str, id: str, lane: str, message: Message) -> None:
        """Ignore the lanes and egresses that a message reaches."""


def _tracing(side: Side, limits: ReplayLimits) -> PipelineRunner:
    work = WorkMeter(limits.max_record_work, limits.max_work)
    return PipelineRunner(
        side.spec, stage_config=side.stage_config, ops=side.ops, max_actions=limits.max_actions, work=work
    )


def _first_stage(old: PipelineRunner, new: PipelineRunner, lane: str, payload: bytes) -> str | None:
    """Return the first stage in which a record becomes different, by the candidate's order. None if there is none."""
    traces = []
    for runner in (old, new):
        steps = _Steps()
        if lane in runner.model.entries:
            with suppress(StageError, LimitExceeded):
                runner.trace(lane, payload, steps)
        traces.append(steps.changes)
    for before, after in zip_longest(*traces):
        if before is None or after is None or before[1] != after[1]:
            stage: str = (after or before)[0]
            return stage
    return None


def _by_record[T](parts: Iterable[tuple[int, T, Any]]) -> dict[int, list[tuple[T, Any]]]:
    """Return what a side did with each record, by its rank."""
    found: dict[int, list[tuple[T, Any]]] = {}
    for rank, name, value in parts:
        found.setdefault(rank, []).append((name, value))
    return found


def _rows(selection: Selection) -> Iterator[_Row]:
    rows = selection.rows()
    if len(selection.journals) == 1:  # without a merge
        rows = ((0, sequence, payload) for _, sequence, _, payload in selection.journals[0].rows(selection.skipped))
    return (_Row(rank, *row) for rank, row in enumerate(rows))


def _batches(selection: Selection, most: int) -> Iterator[list[_Row]]:
    """Yield the records in batches of at most ``most`` records, and at most ``_BATCH_BYTES`` before the last one."""
    batch, size = list[_Row](), 0
    for row in _rows(selection):
        batch.append(row)
        size += len(row.payload)
        if len(batch) >= most or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def find_differences(
    bundle: IncidentBundle,
    candidate: Side,
    baseline: Side,
    *,
    journal_lane: str | None = None,
    last_n: int | None = None,
    limits: ReplayLimits | None = None,
    progress: Progress | None = None,
) -> Differences:
    """Return how the candidate differs from the baseline on the selected records of a bundle.

    - ``journal_lane`` and ``last_n`` select the records as in a replay. A side skips the records of ingresses that it
      does not have.
    - ``progress`` is called about every 1,000 records, and may raise ``Cancelled``.
    - The result depends only on the bundle's files, the two sides, the selection and ``limits``.

    Raises Unsupported if a side cannot run: its spec, an op or the parameters of a stage.
    """
    limits, progress, groups = limits or ReplayLimits(), progress or (lambda _done, _total: None), _Groups()
    old, new = _Run(baseline, limits), _Run(candidate, limits)
    with ExitStack() as files:
        try:
            lanes, _ = choose_lanes(bundle, new.runner, journal_lane)
            more = (name for name in old.runner.model.ingresses if name in bundle.journals and journal_lane is None)
            lanes = list(dict.fromkeys((*lanes, *more)))
            journals = list(open_journals(bundle, lanes, files, limits.max_records, progress))
            selection = Selection(journals, last_n)
            check_size(selection, limits.max_selected_bytes)
        except (BadInput, LimitExceeded) as error:
            return Differences(LockstepStatus.FAILED, [], 0, 0, (0, 0), str(error))
        # The outputs of a graph with branches may be much larger than its input.
        most = 1 if old.runner.model.has_branches or new.runner.model.has_branches else _BATCH_RECORDS
        for batch in _batches(selection, most):
            if batch[0].rank % _BATCH_RECORDS == 0:
                progress(batch[0].rank, selection.records)
            new.process(batch, lanes)
            old.process(batch, lanes)
            groups.compare(old, new, {row.rank: row for row in batch})
            if old.stop is not None or new.stop is not None:
                break
        progress(selection.records, selection.records)
        work = new.meter.total, old.meter.total
        if new.stop is not None and new.stop.stage is None and (old.stop is None or new.stop.rank <= old.stop.rank):
            return Differences(LockstepStatus.FAILED, [], 0, selection.records, work, new.stop.detail)
        groups.trace_examples(old.side, new.side, selection, limits)
    return groups.differences(selection, work)
