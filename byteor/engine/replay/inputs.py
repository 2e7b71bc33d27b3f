"""Chooses the journals and the expected frames of a bundle that a replay uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from byteor.engine.compiler import PipelineSpec, SingleRing
from byteor.engine.replay.graph_runner import reachable
from byteor.engine.replay.incident import IncidentBundle
from byteor.engine.replay.journal import BadJournal, Frame, read_frames
from byteor.engine.replay.runner import PipelineRunner

MAX_JOURNALS = 100
MAX_COMPARED = 250
"""The maximum numbers of merged journals and of compared egresses, each of which needs an open file."""


class BadInput(Exception):
    """Raised for a bundle or an argument that cannot be used. The message is the reason."""


def expected_frames(egress: str, source: BinaryIO) -> Iterator[Frame]:
    """Yield the expected frames of an egress. Raises BadInput."""
    try:
        yield from read_frames(source)
    except BadJournal as error:
        raise BadInput(f"expected/{egress}.bin: {error}") from error


def unfed_egresses(spec: PipelineSpec, lanes: Sequence[str]) -> set[str]:
    """Return the egresses that can be reached from an ingress that is not replayed."""
    if isinstance(spec.model, SingleRing):
        return set()
    ends = [end for end in spec.model.endpoints if end.kind == "ingress" and end.name not in lanes]
    return {name for end in ends for name in reachable(spec.model, end.lane)}


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
