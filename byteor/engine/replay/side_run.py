"""A configuration that runs in lockstep with another one, and the first stage in which the two differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple, override

from byteor.engine.compiler import PipelineSpec, SingleRing
from byteor.engine.replay.graph_runner import reachable
from byteor.engine.replay.payload import DropReason, Message
from byteor.engine.replay.replay import ReplayLimits
from byteor.engine.replay.runner import PipelineRunner
from byteor.engine.replay.selection import Selection
from byteor.engine.replay.stages import Decision, DryRun, Stage, StageError, StageFunction
from byteor.engine.replay.work import LimitExceeded, WorkMeter


@dataclass(frozen=True, slots=True)
class Side:
    """A configuration: a spec, the parameters of its stages, and the functions of ops of installed packages."""

    spec: PipelineSpec
    stage_config: Mapping[str, Any] | None = None
    ops: Mapping[str, StageFunction] = field(default_factory=dict)


class Row(NamedTuple):
    """A selected record. ``rank`` is its index among the selected records, and ``journal`` that of its journal."""

    rank: int
    journal: int
    sequence: int
    payload: bytes


class Stop(NamedTuple):
    """The record at which a side stopped, and why.

    ``stage`` is the stage that failed, and ``code`` is the ``StageFault``. If no stage failed, ``stage`` is None.
    ``code`` is then a ``LimitCode``, or ``ErrorCode.BAD_INPUT`` if the side has none of the journals' lanes.
    """

    rank: int
    stage: str | None
    code: str
    detail: str


class SideRun(DryRun):
    """A side while it runs. It keeps the outputs, side effects and drops of a batch, each with its record's rank."""

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
        self.messages: list[Message] = []  # the messages of ``outputs``, whose JSON may already be parsed
        self.actions: list[tuple[int, str, str]] = []
        self.drops: dict[int, list[tuple[str, DropReason]]] = {}
        self.stop: Stop | None = None
        self._rank = 0
        self._shared: Mapping[int, Message] = {}
        self._reach: dict[str, set[str]] = {}
        sinks = {name: partial(self._add_output, name) for name in self.runner.egresses}
        self.runner.connect_messages(lambda _: self._shared[self._rank], sinks)

    def process(self, batch: Sequence[Row], lanes: Sequence[str], messages: Mapping[int, Message]) -> None:
        """Process a batch, up to the record that stops the side. Records of unknown lanes are skipped.

        ``lanes`` are the lanes of the journals. ``messages`` are the messages of the records, by rank. Both sides share
        the messages, so that the second side can use a JSON value that the first one has parsed.
        """
        self.outputs, self.messages, self.actions, self.drops, self._shared = [], [], [], {}, messages
        for number, rows in groupby(batch, key=itemgetter(1)):
            if self.stop is not None:
                return
            if lanes[number] in self.runner.model.entries:
                self._run_rows(lanes[number], rows)

    def dropped(self, rank: int, egress: str) -> list[tuple[str, DropReason]]:
        """Return the stage and the reason of each drop of a record, in topological order.

        Only stages that lead to the egress count.
        """
        return [drop for drop in self.drops.get(rank, []) if egress in self.reached(drop[0])]

    @override
    def decide(self, stage: str, op: str) -> Decision:
        self.actions.append((self._rank, stage, op))
        return super().decide(stage, op)

    def _run_rows(self, lane: str, rows: Iterable[Row]) -> None:
        try:
            self.runner.run_rows(lane, self._counted(rows))
        except StageError as error:
            self.stop = Stop(self._rank, error.stage, error.fault, error.detail)
        except LimitExceeded as error:
            self.stop = Stop(self._rank, None, error.code, str(error))

    def _counted(self, rows: Iterable[Row]) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield the rows. Outputs, side effects and drops belong to the row that was yielded last."""
        for self._rank, _, sequence, payload in rows:
            yield 0, sequence, 0, payload

    def _add_output(self, egress: str, _sequence: int, message: Message) -> None:
        self.outputs.append((self._rank, egress, message.payload))
        self.messages.append(message)

    def _add_drop(self, stage: str, reason: DropReason) -> None:
        self.drops.setdefault(self._rank, []).append((stage, reason))

    def reached(self, stage: str) -> set[str]:
        """Return the egresses that a stage leads to."""
        if stage not in self._reach:
            model = self.side.spec.model
            if isinstance(model, SingleRing):
                self._reach[stage] = {model.egress}
            else:
                [role] = [role for role in model.roles if role.name == stage]
                self._reach[stage] = reachable(model, role.tx[0])
        return self._reach[stage]


def selected_rows(selection: Selection) -> Iterator[Row]:
    """Yield the selected records in merge order."""
    rows = selection.rows()
    if len(selection.journals) == 1:  # without a merge
        rows = ((0, sequence, payload) for _, sequence, _, payload in selection.journals[0].rows(selection.skipped))
    return (Row(rank, *row) for rank, row in enumerate(rows))


class Tracer:
    """Traces single records through a side, without changing the counters and the work of its run."""

    def __init__(self, run: SideRun, limits: ReplayLimits) -> None:
        self._run = run
        self._runner = tracing_runner(run.side, limits)

    def steps(self, lane: str, payload: bytes, egress: str | None) -> Steps:
        """Return what the stages that lead to an egress do with a record. With None, all stages count.

        The steps end at a stage error or a limit. They are empty if the side does not have the lane.
        """
        steps = Steps()
        if lane in self._runner.model.entries:
            with suppress(StageError, LimitExceeded):
                self._runner.trace(lane, payload, steps)
        if egress is not None:
            steps.keep(lambda stage: egress in self._run.reached(stage))
        return steps


class Steps:
    """The stages that a record reached, and how they changed it.

    ``changes`` has only the stages that changed or dropped the record, each with the resulting payload or with the
    reason for the drop. A stage error is a change to None.
    """

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.changes: list[tuple[str, bytes | DropReason | None]] = []

    def run_stage(self, stage: Stage, lane: str, message: Message) -> Message | DropReason:
        """Run a stage, and note what it changes. Raises StageError and LimitExceeded."""
        self.passed.append(stage.id)
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

    def keep(self, is_kept: Callable[[str], bool]) -> None:
        """Remove the stages for which ``is_kept`` returns False."""
        self.passed = [stage for stage in self.passed if is_kept(stage)]
        self.changes = [change for change in self.changes if is_kept(change[0])]


def tracing_runner(side: Side, limits: ReplayLimits) -> PipelineRunner:
    """Return a separate runner, whose traces do not change the counters and the work of a run.

    Raises Unsupported if the side cannot be run.
    """
    work = WorkMeter(limits.max_record_work, limits.max_work)
    return PipelineRunner(
        side.spec, stage_config=side.stage_config, ops=side.ops, max_actions=limits.max_actions, work=work
    )


def first_different_stage(before: Steps, after: Steps) -> str | None:
    """Return the first stage that changes a record differently on the two sides, or None if there is none.

    Stages that leave the record unchanged do not count. If the first different changes are of two stages, the result is
    the stage that the record reached first in the candidate (``after``). If the record did not reach both stages there,
    the order in the baseline counts. If it did not reach both there either, the result is the candidate's stage.
    """
    for old, new in zip_longest(before.changes, after.changes):
        if old is None or new is None:
            return (new or old)[0]
        if old[1] != new[1]:
            for passed in (after.passed, before.passed):
                if old[0] in passed and new[0] in passed:
                    return min(old[0], new[0], key=passed.index)
            return new[0]
    return None
