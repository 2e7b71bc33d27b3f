"""Runs two configurations in lockstep over the records of a capture, and groups how the candidate differs.

Both sides get the same records in the same order (``selection.py``). For each record, the outputs at an egress are
compared in pairs: the first of one side with the first of the other side, and so on. Side effects are compared in the
same way. If a stage error or a limit stops a side, the comparison ends at that record. Only the groups are kept in
memory, not the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from byteor.engine.replay.difference_groups import DifferenceGroups
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.inputs import BadInput, Progress, check_size, choose_lanes, open_journals
from byteor.engine.replay.payload import Message
from byteor.engine.replay.replay import ErrorCode, ReplayLimits
from byteor.engine.replay.selection import Selection
from byteor.engine.replay.side_run import Row, Side, SideRun, Stop, selected_rows
from byteor.engine.replay.work import LimitExceeded

# Small batches, because the parsed payloads of larger batches do not fit into the processor's cache.
_BATCH_RECORDS, _BATCH_BYTES = 64, 1024 * 1024
_PROGRESS_RECORDS = 1024  # records between two calls of the progress callback


class LockstepStatus(StrEnum):
    """Whether the candidate does the same as the baseline.

    ``failed``: the candidate exceeded a limit, or the records cannot be used.
    """

    EQUAL = "equal"
    DIFFERENT = "different"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Differences:
    """How a candidate differs from its baseline.

    ``groups`` are JSON data, in the order in which they were found. ``more`` is the number of differences without a
    group, because of ``MAX_GROUPS`` or ``MAX_POINTER_CHARACTERS``. ``records`` is the number of selected records, or 0
    if they cannot be used. ``work`` is the work of the candidate and of the baseline, in the units of ``WorkMeter``.
    ``error`` is the reason for the status ``failed``, otherwise None.
    """

    status: LockstepStatus
    groups: list[dict[str, Any]]
    more: int
    records: int
    work: tuple[int, int]
    error: str | None = None


def _batches(selection: Selection, most: int) -> Iterator[list[Row]]:
    """Yield the records in batches. A batch ends when it has ``most`` records, or at least ``_BATCH_BYTES``."""
    batch, size = list[Row](), 0
    for row in selected_rows(selection):
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

    - ``journal_lane`` and ``last_n`` select the records as in a replay, except that by default the journals of the
      ingresses of both sides are used. A side skips the records of ingresses that it does not have. A baseline without
      any of the ingresses stops at the first record. A candidate without any of them fails.
    - ``progress`` is called about every 1,000 records, and may raise ``Cancelled``.
    - The result depends only on the bundle's files, the two sides, the selection and ``limits``.

    Raises Unsupported if a side has a spec, an op or parameters that cannot be run.
    """
    limits, progress, groups = limits or ReplayLimits(), progress or (lambda _done, _total: None), DifferenceGroups()
    old, new = SideRun(baseline, limits), SideRun(candidate, limits)
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
        if old.runner.model.entries.keys().isdisjoint(lanes):
            old.stop = Stop(
                0, None, ErrorCode.BAD_INPUT, f"the baseline has none of the journals' lanes: {', '.join(lanes)}"
            )
        # A graph with branches may output much more than its input, so only the outputs of one record are kept.
        most = 1 if old.runner.model.has_branches or new.runner.model.has_branches else _BATCH_RECORDS
        due = 0
        for batch in _batches(selection, most):
            if batch[0].rank >= due:
                progress(batch[0].rank, selection.records)
                due += _PROGRESS_RECORDS
            messages = {row.rank: Message(row.payload) for row in batch}
            new.process(batch, lanes, messages)
            old.process(batch, lanes, messages)
            groups.compare(old, new, {row.rank: row for row in batch})
            if old.stop is not None or new.stop is not None:
                break
        progress(selection.records, selection.records)
        work = new.meter.total, old.meter.total
        if new.stop is not None and new.stop.stage is None and (old.stop is None or new.stop.rank <= old.stop.rank):
            return Differences(LockstepStatus.FAILED, [], 0, selection.records, work, new.stop.detail)
        groups.trace_examples(old, new, selection, limits)
    shown = groups.as_json(selection)
    status = LockstepStatus.DIFFERENT if shown else LockstepStatus.EQUAL
    return Differences(status, shown, groups.more, selection.records, work)
