"""The output record at which a replay diverged from its capture, and the neighboring records."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from byteor.engine.replay.divergence import digest_of
from byteor.engine.replay.journal import BadJournal, Frame, encode_frame, read_frames
from byteor.engine.replay.member_rows import MemberRows, compare_payloads

NEIGHBORS = 2  # the maximum number of records before the divergent record, and after it
_MAX_READ = 8 * 1024 * 1024  # bytes of expected output; if a page needs more, it shows no neighbors


class _NotFound(Exception):
    """Raised if the record is not found, or if more than ``_MAX_READ`` bytes would have to be read."""


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An output record on the expected and the actual side. A side is None if it does not have the record."""

    sequence: int
    expected: bytes | None
    actual: bytes | None
    is_divergence: bool


@dataclass(frozen=True, slots=True)
class Divergence:
    """The divergent record on both sides. A side is None if it does not have the record.

    If the records cannot be read, the sides are excerpts of the record from the byte ``start``, and there are no
    ``neighbors``. ``members`` shows how the JSON of the two sides differs; None if a side does not have the record, if
    the sides are excerpts, or if only their bytes can be compared.
    """

    expected: bytes | None
    actual: bytes | None
    start: int
    neighbors: list[Neighbor]
    members: MemberRows | None = None


def read_around_in(path: str, found: dict[str, Any], actual: bytes) -> Divergence | None:
    """Call ``read_around`` with the file at ``path``.

    Returns None if the file is missing, if a damaged frame is reached, if the record is not found, or if more than
    ``_MAX_READ`` bytes of the file would have to be read.
    """
    try:
        with open(path, "rb") as expected:
            return read_around(found, expected, actual)
    except (_NotFound, BadJournal, FileNotFoundError):
        return None


def read_around(found: dict[str, Any], expected: BinaryIO, actual: bytes) -> Divergence:
    """Return the divergent record and its neighbors on the side that has it, with the other side's counterparts.

    If both sides have the record, the neighbors are those of the expected output. Raises _NotFound, or BadJournal if a
    damaged frame is reached.
    """
    is_extra = found["kind"] == "extra"
    own_digest, other_digest = found["expected_sha256"], found["actual_sha256"]
    own, other = _bounded(read_frames(expected)), read_frames(io.BytesIO(actual))
    if is_extra:
        own, other, own_digest, other_digest = other, own, other_digest, own_digest
    before, this, after = _window(own, found["sequence"], own_digest)
    window = [*before, this, *after]
    # With one ingress, the sequences of an output never decrease.
    end = None if found.get("ingress") else window[-1].sequence
    counterpart, candidates = _counterparts(other, {each.sequence for each in window}, this.sequence, other_digest, end)
    neighbors = []
    for frame in window:
        # Several ingresses may use the same sequence, so a record with an equal payload is preferred.
        same = candidates.get(frame.sequence, [])
        closest = frame.payload if frame.payload in same else next(iter(same), None)
        there = counterpart if frame is this else closest
        sides = (there, frame.payload) if is_extra else (frame.payload, there)
        neighbors.append(Neighbor(frame.sequence, sides[0], sides[1], frame is this))
    divergent = next(each for each in neighbors if each.is_divergence)
    expected_payload, actual_payload = divergent.expected, divergent.actual
    has_both = expected_payload is not None and actual_payload is not None
    members = compare_payloads(expected_payload, actual_payload) if has_both else None
    return Divergence(expected_payload, actual_payload, 0, neighbors, members)


def _bounded(frames: Iterator[Frame]) -> Iterator[Frame]:
    read = 0
    for frame in frames:
        read += len(encode_frame(frame))
        if read > _MAX_READ:
            raise _NotFound
        yield frame


def _window(frames: Iterator[Frame], sequence: int, digest: str) -> tuple[deque[Frame], Frame, list[Frame]]:
    """Return the records before the divergent record, that record, and the records after it."""
    before: deque[Frame] = deque(maxlen=NEIGHBORS)
    for frame in frames:
        if frame.sequence == sequence and digest_of(frame.payload) == digest:
            return before, frame, list(islice(frames, NEIGHBORS))
        before.append(frame)
    raise _NotFound


def _counterparts(
    frames: Iterator[Frame], sequences: set[int], sequence: int, digest: str | None, end: int | None
) -> tuple[bytes | None, dict[int, list[bytes]]]:
    """Return the payload with ``sequence`` and ``digest`` (or None), and lists of payloads by sequence.

    The lists contain the payloads of all frames whose sequence is in ``sequences``.
    """
    payload, found = None, dict[int, list[bytes]]()
    for frame in frames:
        if end is not None and frame.sequence > end:
            break
        if frame.sequence in sequences:
            found.setdefault(frame.sequence, []).append(frame.payload)
            if payload is None and frame.sequence == sequence and digest_of(frame.payload) == digest:
                payload = frame.payload
    return payload, found
