"""Follows records through a pipeline: the payload at each stage and lane, and why a record was dropped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from byteor.engine.compiler import PipelineSpec
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.inputs import BadInput, choose_lanes
from byteor.engine.replay.journal import BadJournal, JournalReader, Record
from byteor.engine.replay.journal_index import JournalIndex, StaleIndex
from byteor.engine.replay.payload import DropReason, Message
from byteor.engine.replay.replay import ReplayLimits
from byteor.engine.replay.runner import PipelineRunner
from byteor.engine.replay.shown_payload import show_payload
from byteor.engine.replay.stages import Action, Stage, StageError, StageFunction
from byteor.engine.replay.work import LimitExceeded, WorkMeter

MAX_RECORDS = 16
"""The maximum number of records with one sequence that are traced in each journal."""
MAX_BYTES = 3 * 1024 * 1024
"""The maximum JSON size of a page. The last record and its last step may exceed it by less than 1 MiB."""
STAGE_ERROR = "stage_error"


def trace(
    bundle: IncidentBundle,
    sequence: int,
    *,
    spec: PipelineSpec | None = None,
    stage_config: Mapping[str, Any] | None = None,
    ops: Mapping[str, StageFunction] | None = None,
    ingress: str | None = None,
    indexes: Mapping[str, Path] | None = None,
    limits: ReplayLimits | None = None,
    after: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """Return a page of the steps of the records with this sequence, as JSON data: ``records, truncated, next_after``.

    The steps of all records are numbered from 0. A page begins after the step with the number ``after``. If it is
    ``truncated``, the next page begins after ``next_after``. A record without steps on the page is left out.

    - ``ingress`` is the lane whose journal is read. By default, the journals that a replay would use are read.
    - ``indexes`` are the index files of journals, by lane. Without a usable index, the journal is read up to its end.
    - Nothing is performed: side effects are listed as ``DryRunOnly``.

    Raises BadInput for a fault of the bundle or an argument, and Unsupported if the pipeline cannot run.
    """
    limits = limits or ReplayLimits()
    runner = PipelineRunner(
        spec or bundle.spec,
        stage_config=stage_config,
        ops=ops,
        max_actions=limits.max_actions,
        work=WorkMeter(limits.max_record_work, limits.max_work),
    )
    lanes, _ = choose_lanes(bundle, runner, ingress)
    page = _Page(0 if after is None else after + 1, max_bytes)
    records: list[dict[str, Any]] = []
    for lane in lanes:
        try:
            for position, record in _find(bundle.journals[lane], (indexes or {}).get(lane), sequence):
                records += page.traced(runner, lane, position, record)
                if page.next_after is not None:
                    return {"records": records, "truncated": True, "next_after": page.next_after}
        except BadJournal as error:
            raise BadInput(f"journal/{lane}.bin: {error}") from error
    return {"records": records, "truncated": False, "next_after": None}


def _find(journal: Path, index: Path | None, sequence: int) -> Iterator[tuple[int, Record]]:
    """Yield the first ``MAX_RECORDS`` records with a sequence, with their positions in sequence order."""
    if index is not None:
        try:
            with JournalIndex.open(journal, index) as opened:
                for position in opened.positions(sequence)[:MAX_RECORDS]:
                    yield position, opened.record(position)
                return
        except (StaleIndex, FileNotFoundError):
            pass  # read the journal instead
    with journal.open("rb") as source:
        position = sum(number < sequence for _, number, _, _ in JournalReader(source).rows())
    with journal.open("rb") as source:
        found = (row for row in JournalReader(source).rows() if row[1] == sequence)
        for _, number, unix_ns, payload in islice(found, MAX_RECORDS):
            yield position, Record(number, unix_ns, payload)
            position += 1


class _Page:
    """A page of steps: the steps from the number ``first`` on, up to ``max_bytes`` of JSON."""

    def __init__(self, first: int, max_bytes: int) -> None:
        self.next_after: int | None = None
        self._first, self._left = first, max_bytes
        self._steps = 0

    def traced(self, runner: PipelineRunner, lane: str, position: int, record: Record) -> list[dict[str, Any]]:
        """Trace a record. Returns one entry with the steps on this page, or no entry if no steps are on this page."""
        steps = _Steps(record.sequence, runner.actions, self)
        steps.show("ingress", lane, runner.model.lane_of(lane), Message(record.payload))
        reached: list[str] = []
        try:
            reached = runner.trace(lane, record.payload, steps)
        except StageError:
            pass  # the last step shows the error
        except LimitExceeded as error:
            steps.stop(str(error.code))
        if not steps.shown:
            return []
        self._left -= len(json.dumps(reached))
        return [{"ingress": lane, "position": position, "steps": steps.shown, "egress": reached}]

    def has_next(self) -> bool:
        """Count a step. Returns whether it is on this page."""
        number, self._steps = self._steps, self._steps + 1
        if number >= self._first and self._left <= 0 and self.next_after is None:
            self.next_after = number - 1
        return number >= self._first and self.next_after is None

    def spend(self, step: dict[str, Any]) -> None:
        self._left -= len(json.dumps(step, ensure_ascii=False).encode())


class _Steps:
    """Collects the steps of one record that are on a page."""

    def __init__(self, sequence: int, actions: list[Action], page: _Page) -> None:
        self.shown: list[dict[str, Any]] = []
        self._sequence = sequence
        self._actions = actions
        self._page = page
        self._is_last_shown = False

    def show(self, kind: str, id: str, lane: str, message: Message) -> None:
        self._add(kind, id, lane, message, None, [])

    def run_stage(self, stage: Stage, lane: str, message: Message) -> Message | DropReason:
        before = len(self._actions)
        try:
            result = stage.process(message, self._sequence)
        except StageError:
            self._add("stage", stage.id, lane, None, STAGE_ERROR, self._since(before))
            raise
        if isinstance(result, Message):
            self._add("stage", stage.id, lane, result, None, self._since(before))
        else:
            self._add("stage", stage.id, lane, None, str(result), self._since(before))
        return result

    def stop(self, code: str) -> None:
        """Record in the last step which limit stopped the trace, if that step is on the page."""
        if self._is_last_shown:
            self.shown[-1]["dropped"] = code

    def _since(self, before: int) -> list[dict[str, Any]]:
        return [dataclasses.asdict(action) for action in self._actions[before:]]

    def _add(
        self, kind: str, id: str, lane: str, message: Message | None, dropped: str | None, actions: list[dict[str, Any]]
    ) -> None:
        self._is_last_shown = self._page.has_next()
        if not self._is_last_shown:
            return
        payload: dict[str, Any] = {"json": None, "payload_base64": None, "truncated": False}
        if message is not None:
            payload = show_payload(message.payload)
        step = {"kind": kind, "id": id, "lane": lane, **payload, "dropped": dropped, "actions": actions}
        self._page.spend(step)
        self.shown.append(step)
