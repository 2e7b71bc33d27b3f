"""Chooses the journals and the expected frames of a bundle that a replay uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from byteor.engine.compiler import PipelineSpec, SingleRing
from byteor.engine.replay.graph_runner import reachable
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.journal import BadJournal, Frame, read_frames
from byteor.engine.replay.runner import PipelineRunner
from byteor.engine.replay.selection import OrderedJournal, Selection
from byteor.engine.replay.work import LimitCode, LimitExceeded

MAX_JOURNALS = 100
MAX_COMPARED = 250
"""The maximum numbers of journals that a replay merges, and of egresses of its spec that it compares.

Each of them needs an open file.
"""


type Progress = Callable[[int, int], None]
"""A callback that takes the number of completed records, and the number of records to process.

While the journals are read, the numbers are 0 and the number of records that were counted so far.
"""


class BadInput(Exception):
    """Raised for a bundle or an argument that cannot be used. The message is the reason."""


def expected_frames(egress: str, source: BinaryIO) -> Iterator[Frame]:
    """Yield the expected frames of an egress. Raises BadInput."""
    try:
        yield from read_frames(source)
    except BadJournal as error:
        raise BadInput(f"expected/{egress}.bin: {error}") from error


def open_journals(
    bundle: IncidentBundle, lanes: Sequence[str], files: ExitStack, max_records: int, progress: Progress
) -> Iterator[OrderedJournal]:
    """Open the journals of some lanes one after the other. Raises BadInput, and LimitExceeded for too many records.

    ``progress`` is called with the number of records that were counted so far.
    """
    scanned = 0

    def count(records: int) -> None:
        if scanned + records > max_records:
            detail = f"the journals have more than {max_records} records"
            raise LimitExceeded(LimitCode.RECORDS, detail)
        progress(0, scanned + records)

    for lane in lanes:
        path = bundle.journals[lane]
        try:
            journal = OrderedJournal(lane, path, files, count)
        except BadJournal as error:
            raise BadInput(f"journal/{path.name}: {error}") from error
        scanned += journal.scan.records
        yield journal


def check_size(selection: Selection, max_bytes: int) -> None:
    """Raise LimitExceeded if the payloads of the selected records have more than ``max_bytes`` bytes."""
    if selection.payload_bytes > max_bytes:
        detail = f"the input has {selection.payload_bytes} bytes, more than {max_bytes}"
        raise LimitExceeded(LimitCode.INPUT, detail)


def unfed_egresses(spec: PipelineSpec, lanes: Sequence[str]) -> set[str]:
    """Return the egresses that can be reached from an ingress that is not replayed."""
    if isinstance(spec.model, SingleRing):
        return set()
    graph = spec.model
    ends = [end for end in graph.endpoints if end.kind == "ingress"]
    # A lane can be chosen by its own name or by that of its ingress.
    unfed = [end for end in ends if not {end.name, graph.lanes[end.lane].name} & {*lanes}]
    return {name for end in unfed for name in reachable(graph, end.lane)}


def choose_lanes(bundle: IncidentBundle, runner: PipelineRunner, chosen: str | None) -> tuple[list[str], list[str]]:
    """Return the lanes whose journals are replayed together, and warnings about journals of other lanes.

    With a ``chosen`` lane, there are no warnings. Raises BadInput.
    """
    found, listed = runner.model.ingresses, ", ".join(bundle.journals) or "none"
    ingresses = ", ".join(found) or "none"
    if chosen is not None:
        if chosen not in bundle.journals:
            raise BadInput(f"the bundle has no journal of lane {chosen!r}; its journals are: {listed}")
        if chosen not in runner.model.entries:
            raise BadInput(f"{chosen!r} is not an ingress or a lane of the spec; its ingresses are: {ingresses}")
        return [chosen], []
    lanes = [name for name in found if name in bundle.journals]
    if len(lanes) > MAX_JOURNALS:
        raise BadInput(f"more than {MAX_JOURNALS} ingresses have a journal; choose one of them")
    if not lanes:
        raise BadInput(f"the bundle has no journal of any ingress ({ingresses}); its journals are: {listed}")
    detail = "is not replayed, because its lane is not an ingress of the spec"
    return lanes, [f"journal/{name}.bin {detail}" for name in bundle.journals if name not in found]
