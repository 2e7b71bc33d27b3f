"""Compares the output of an egress frame by frame with the expected frames, which a bundle or another replay has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from byteor.engine.replay.journal import Frame
from byteor.engine.replay.json_difference import Kind, differing_payloads

_SHOWN = 64
"""The maximum number of bytes of each side in a diff, starting with the first byte that differs."""


type Rows = Iterable[tuple[int, int, bytes]]
"""The input records in order: the number of the journal, the sequence and the payload."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A divergence at an expected frame whose sequence is known, but whose input record is not known yet.

    If the expected frame's record comes before the actual frame's record, the divergence is ``missing``; otherwise it
    is ``extra``. The rank (see ``Comparison``) of the expected frame's record is ``since`` or higher. If there is no
    actual frame, ``missing`` and ``extra`` are the same.
    """

    sequence: int
    since: int
    missing: dict[str, Any]
    extra: dict[str, Any]


class Comparison:
    """Compares one egress with its expected frames, and keeps the first divergence.

    ``divergence`` is None or JSON data:

    - ``egress`` and ``sequence``, and with ``has_ranks`` also ``ingress``;
    - ``kind``: ``changed`` (JSON values that differ), ``bytes`` (any other two payloads), ``missing`` or ``extra``;
    - ``pointers``: the JSON Pointers of the changed members, as ``differing_members`` returns them, otherwise ``[]``;
    - ``expected_sha256`` and ``actual_sha256``: the hashes of the payloads, None for a record that one side lacks;
    - ``diff``: ``offset`` is the index of the first byte that differs, ``expected_bytes`` and ``actual_bytes`` are the
      lengths, ``expected_hex`` and ``actual_hex`` at most 64 bytes of each side from that offset.

    ``rank`` orders the divergences of several egresses. It is the sequence of the divergence's record. With
    ``has_ranks``, it is the record's number among the merged records, and ``settle_divergences`` must be called. A
    replay needs ``has_ranks`` if its pipeline has several ingresses.
    """

    def __init__(self, egress: str, expected: Iterator[Frame], *, has_ranks: bool = False) -> None:
        self.divergence: dict[str, Any] | None = None
        self.rank = 0
        self.unsettled: Unsettled | None = None
        self._egress = egress
        self._expected = expected
        self._has_ranks = has_ranks
        self._latest = 0

    def compare(self, sequence: int, payload: bytes, rank: int = 0, ingress: str | None = None) -> None:
        """Compare the next frame of the egress, which the input record with this rank produced."""
        if self.divergence is not None:
            return
        expected = next(self._expected, None)
        if expected is not None and expected.sequence == sequence:
            self._latest = rank
            if expected.payload != payload:
                self._keep(self._described(sequence, expected.payload, payload, ingress), rank)
            return
        extra = self._described(sequence, None, payload, ingress)
        if expected is None:
            self._keep(extra, rank)
            return
        missing = self._described(expected.sequence, expected.payload, None, None)
        self._keep(extra if expected.sequence > sequence else missing, rank)
        if self._has_ranks:
            self.unsettled = Unsettled(expected.sequence, self._latest, missing, extra)

    def finish(self, rank: int = 0) -> None:
        """Finish the comparison after the last frame of the egress. ``rank`` is the number of input records."""
        if self.divergence is None and (expected := next(self._expected, None)):
            missing = self._described(expected.sequence, expected.payload, None, None)
            self._keep(missing, rank)
            if self._has_ranks:
                self.unsettled = Unsettled(expected.sequence, self._latest, missing, missing)

    def settle(self, rank: int, ingress: str) -> None:
        """Determine the divergence from the rank and the ingress of the expected frame's record."""
        if self.unsettled is None:
            return
        if rank < self.rank:
            self.rank, self.divergence = rank, self.unsettled.missing | {"ingress": ingress}
        else:
            self.divergence = self.unsettled.extra
        self.unsettled = None

    def _keep(self, divergence: dict[str, Any], rank: int) -> None:
        self.divergence = divergence
        self.rank = rank if self._has_ranks else divergence["sequence"]

    def _described(
        self, sequence: int, expected: bytes | None, actual: bytes | None, ingress: str | None
    ) -> dict[str, Any]:
        pointers: list[str] = []
        if expected is None or actual is None:
            kind = Kind.EXTRA if expected is None else Kind.MISSING
        else:
            kind, pointers = differing_payloads(expected, actual)
        described = {
            "egress": self._egress,
            "sequence": sequence,
            "kind": kind.value,
            "pointers": pointers,
            "expected_sha256": digest_of(expected),
            "actual_sha256": digest_of(actual),
            "diff": _diff(expected or b"", actual or b""),
        }
        return described | {"ingress": ingress} if self._has_ranks else described


def settle_divergences(comparisons: Iterable[Comparison], rows: Rows, lanes: Sequence[str]) -> None:
    """Settle the divergences of a replay of several ingresses, in one pass over the input.

    A divergence stays as it is if no record from the rank ``since`` on has the expected sequence.
    """
    waiting: dict[int, list[Comparison]] = {}
    for comparison in comparisons:
        if comparison.unsettled is not None:
            waiting.setdefault(comparison.unsettled.sequence, []).append(comparison)
    for rank, (number, sequence, _) in enumerate(rows if waiting else ()):
        for comparison in waiting.get(sequence, ()):
            if comparison.unsettled is not None and rank >= comparison.unsettled.since:
                comparison.settle(rank, lanes[number])


def first_divergence(comparisons: Iterable[Comparison]) -> dict[str, Any] | None:
    """Return the divergence with the lowest ``rank``, or None. If several have that rank, return the first."""
    found = [comparison for comparison in comparisons if comparison.divergence]
    first = min(found, key=lambda comparison: comparison.rank, default=None)
    return first.divergence if first else None


def digest_of(payload: bytes | None) -> str | None:
    """Return the digest of a payload as a divergence states it; None for None."""
    return None if payload is None else f"sha256:{hashlib.sha256(payload).hexdigest()}"


def _diff(expected: bytes, actual: bytes) -> dict[str, Any]:
    shared = min(len(expected), len(actual))
    offset = next((at for at in range(shared) if expected[at] != actual[at]), shared)
    return {
        "offset": offset,
        "expected_bytes": len(expected),
        "actual_bytes": len(actual),
        "expected_hex": expected[offset : offset + _SHOWN].hex(),
        "actual_hex": actual[offset : offset + _SHOWN].hex(),
    }
