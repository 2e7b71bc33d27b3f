"""Compares the output of an egress with the expected frames of the bundle, one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from byteor_cloud.engine.replay.journal import Frame

_SHOWN = 64
"""How many bytes of each side a diff contains, starting with the first byte that differs."""


class Comparison:
    """Compares one egress with its expected frames, and keeps the first divergence.

    ``divergence`` is None or JSON data:

    - ``egress`` and ``sequence``;
    - ``kind``: ``changed``, ``missing`` or ``extra``;
    - ``expected_sha256`` and ``actual_sha256``: the hashes of the payloads, None for a record that one side lacks;
    - ``diff``: ``offset`` is the index of the first byte that differs, ``expected_bytes`` and ``actual_bytes`` are the
      lengths, ``expected_hex`` and ``actual_hex`` at most 64 bytes of each side from that offset.
    """

    def __init__(self, egress: str, expected: Iterator[Frame]) -> None:
        self.divergence: dict[str, Any] | None = None
        self._egress = egress
        self._expected = expected

    def compare(self, actual: Frame) -> None:
        """Compare the next frame of the egress."""
        if self.divergence is not None:
            return
        expected = next(self._expected, None)
        if expected is None or expected.sequence > actual.sequence:
            self._diverge("extra", actual.sequence, None, actual.payload)
        elif expected.sequence < actual.sequence:
            self._diverge("missing", expected.sequence, expected.payload, None)
        elif expected.payload != actual.payload:
            self._diverge("changed", actual.sequence, expected.payload, actual.payload)

    def finish(self) -> None:
        """Finish the comparison: the egress has no more frames."""
        if self.divergence is None and (expected := next(self._expected, None)):
            self._diverge("missing", expected.sequence, expected.payload, None)

    def _diverge(self, kind: str, sequence: int, expected: bytes | None, actual: bytes | None) -> None:
        self.divergence = {
            "egress": self._egress,
            "sequence": sequence,
            "kind": kind,
            "expected_sha256": _digest(expected),
            "actual_sha256": _digest(actual),
            "diff": _diff(expected or b"", actual or b""),
        }


def first_divergence(comparisons: Iterable[Comparison]) -> dict[str, Any] | None:
    """Return the divergence with the lowest sequence, or None.

    If several egresses diverge at the same sequence, the first in the order of ``comparisons`` wins.
    """
    found = [comparison.divergence for comparison in comparisons if comparison.divergence]
    return min(found, key=lambda divergence: divergence["sequence"], default=None)


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
