"""Compares the output of an egress with the expected frames of the bundle, one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from byteor_cloud.engine.replay.journal import Frame

_SHOWN = 64
"""How many bytes of each side a diff contains, starting with the first byte that differs."""


type Locate = Callable[[int, int], tuple[int, str] | None]
"""Takes a sequence and a rank; returns rank and ingress of the first record with that sequence from that rank on."""


class Comparison:
    """Compares one egress with its expected frames, and keeps the first divergence.

    ``divergence`` is None or JSON data:

    - ``egress`` and ``sequence``, and ``ingress`` if the pipeline has several;
    - ``kind``: ``changed``, ``missing`` or ``extra``;
    - ``expected_sha256`` and ``actual_sha256``: the hashes of the payloads, None for a record that one side lacks;
    - ``diff``: ``offset`` is the index of the first byte that differs, ``expected_bytes`` and ``actual_bytes`` are the
      lengths, ``expected_hex`` and ``actual_hex`` at most 64 bytes of each side from that offset.

    ``rank`` is where the record of the divergence comes in the order of the input: its sequence if there is one
    ingress, or else, with ``locate``, its number among the merged records.
    """

    def __init__(self, egress: str, expected: Iterator[Frame], locate: Locate | None = None) -> None:
        self.divergence: dict[str, Any] | None = None
        self.rank = 0
        self._egress = egress
        self._expected = expected
        self._locate = locate
        self._latest = 0

    def compare(self, sequence: int, payload: bytes, rank: int = 0, ingress: str | None = None) -> None:
        """Compare the next frame of the egress, which the input record with this rank produced."""
        if self.divergence is not None:
            return
        expected = next(self._expected, None)
        if expected is not None and expected.sequence == sequence:
            self._latest = rank
            if expected.payload != payload:
                self._diverge("changed", sequence, expected.payload, payload, rank, ingress)
        elif expected is None or self._comes_later(expected.sequence, sequence, rank):
            self._diverge("extra", sequence, None, payload, rank, ingress)
        else:
            self._miss(expected, rank)

    def finish(self, rank: int = 0) -> None:
        """Finish the comparison: the egress has no more frames, and the input has this many records."""
        if self.divergence is None and (expected := next(self._expected, None)):
            self._miss(expected, rank)

    def _comes_later(self, expected: int, actual: int, rank: int) -> bool:
        """Whether the record of the expected frame comes after that of the actual frame."""
        found = self._locate(expected, self._latest) if self._locate else None
        return expected > actual if found is None else found[0] > rank

    def _miss(self, expected: Frame, rank: int) -> None:
        found = self._locate(expected.sequence, self._latest) if self._locate else None
        rank, ingress = found or (rank, None)
        self._diverge("missing", expected.sequence, expected.payload, None, rank, ingress)

    def _diverge(
        self, kind: str, sequence: int, expected: bytes | None, actual: bytes | None, rank: int, ingress: str | None
    ) -> None:
        self.rank = rank if self._locate else sequence
        self.divergence = {
            "egress": self._egress,
            "sequence": sequence,
            "kind": kind,
            "expected_sha256": _digest(expected),
            "actual_sha256": _digest(actual),
            "diff": _diff(expected or b"", actual or b""),
        }
        if self._locate:
            self.divergence["ingress"] = ingress


def first_divergence(comparisons: Iterable[Comparison]) -> dict[str, Any] | None:
    """Return the divergence whose record comes first in the input, or None.

    If several egresses diverge at the same record, the first in the order of ``comparisons`` wins.
    """
    found = [comparison for comparison in comparisons if comparison.divergence]
    first = min(found, key=lambda comparison: comparison.rank, default=None)
    return first.divergence if first else None


def _digest(payload: bytes | None) -> str | None:
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
