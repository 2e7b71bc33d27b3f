"""Follows one record through a pipeline: what it became at each stage and lane, and why it was dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byteor_cloud.engine.compiler import PipelineSpec
from byteor_cloud.engine.replay.incident import IncidentBundle
from byteor_cloud.engine.replay.inputs import BadInput, choose_lanes
from byteor_cloud.engine.replay.journal import BadJournal, JournalReader, Record
from byteor_cloud.engine.replay.journal_index import JournalIndex, StaleIndex
from byteor_cloud.engine.replay.payload import DropReason, Message
from byteor_cloud.engine.replay.replay import ReplayLimits
from byteor_cloud.engine.replay.runner import PipelineRunner
from byteor_cloud.engine.replay.shown import SHOWN_BYTES, show_payload
from byteor_cloud.engine.replay.stages import Action, Stage, StageError, StageFunction
from byteor_cloud.engine.replay.work import LimitExceeded, WorkMeter

MAX_RECORDS = 16
"""How many records with one sequence are traced in each journal."""
MAX_STEPS = 1_000
"""How many steps of a record are shown: routers in a row can multiply copies."""
MAX_SHOWN = 4 * 1024 * 1024
"""How many bytes of payloads are shown of a record; the payloads of later steps count as truncated."""
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
) -> dict[str, Any]:
    """Return the steps of the records with this sequence as JSON data. ``records`` is empty if there is none.

    - ``ingress`` is the lane whose journal is read; by default all that a replay would read.
    - ``indexes`` are the index files of journals, by lane. Without a usable one, the journal is read up to its end.
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
    records: list[dict[str, Any]] = []
    for lane in lanes:
        try:
            found = _find(bundle.journals[lane], (indexes or {}).get(lane), sequence)
        except BadJournal as error:
            raise BadInput(f"journal/{lane}.bin: {error}") from error
        records += [_traced(runner, lane, position, record) for position, record in found]
    return {"records": records}


def _find(journal: Path, index: Path | None, sequence: int) -> list[tuple[int, Record]]:
    """Return the records with a sequence, with their positions in sequence order."""
    if index is not None:
        try:
            with JournalIndex.open(journal, index) as opened:
                return [(position, opened.record(position)) for position in opened.positions(sequence)[:MAX_RECORDS]]
        except (StaleIndex, FileNotFoundError):
            pass  # the journal itself has all that is needed
    found: list[Record] = []
    lower = 0
    with journal.open("rb") as source:
        for _, number, unix_ns, payload in JournalReader(source).rows():
            lower += number < sequence
            if number == sequence and len(found) < MAX_RECORDS:
                found.append(Record(number, unix_ns, payload))
    return list(enumerate(found, lower))


def _traced(runner: PipelineRunner, lane: str, position: int, record: Record) -> dict[str, Any]:
    steps = _Steps(record.sequence, runner.actions)
    steps.show("ingress", lane, runner.model.lane_of(lane), Message(record.payload))
    reached: list[str] = []
    try:
        reached = runner.trace(lane, record.payload, steps)
    except StageError:
        pass  # the last step says so
    except LimitExceeded as error:
        steps.stop(str(error.code))
    return {"ingress": lane, "position": position, "steps": steps.shown, "egress": reached}


class _Steps:
    """Collects the steps of one record."""

    def __init__(self, sequence: int, actions: list[Action]) -> None:
        self.shown: list[dict[str, Any]] = []
        self._sequence = sequence
        self._actions = actions
        self._shown_bytes = 0

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
        """Say in the last step which limit ended the trace."""
        self.shown[-1]["dropped"] = code

    def _since(self, before: int) -> list[dict[str, Any]]:
        return [dataclasses.asdict(action) for action in self._actions[before:]]

    def _add(
        self, kind: str, id: str, lane: str, message: Message | None, dropped: str | None, actions: list[dict[str, Any]]
    ) -> None:
        if len(self.shown) >= MAX_STEPS:
            return
        payload: dict[str, Any] = {"json": None, "payload_base64": None, "truncated": False}
        if message is not None:
            self._shown_bytes += min(len(message.payload), SHOWN_BYTES)
            payload["truncated"] = True
            if self._shown_bytes <= MAX_SHOWN:
                payload = show_payload(message.payload)
        self.shown.append({"kind": kind, "id": id, "lane": lane, **payload, "dropped": dropped, "actions": actions})
