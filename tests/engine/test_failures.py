"""The grouping of failures by cause: numbers, ids and hashes are masked, and long causes are shortened."""

from __future__ import annotations

import pytest

from byteor.engine.failures import MAX_CAUSE, find_cause

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("detail", "cause"),
    [
        ("", ""),
        ("cannot open the feed", "cannot open the feed"),
        ("deadbeef is not a decade, and faded is a word", "deadbeef is not a decade, and faded is a word"),
        ("exit code 137", "exit code <number>"),
        ("10.0.0.17:5432 refused the connection", "<number> refused the connection"),
        ("at 2026-11-27T04:15:09.125Z only 3,201.5 MB are free", "at <number>Z only <number> MB are free"),
        ("core17 of host-3 is offline", "core<number> of host-<number> is offline"),
        ("worker 0190b1a2-7e55-7000-8abc-0123456789ab crashed", "worker <id> crashed"),
        ("worker 0190B1A2-7E55-7000-8ABC-0123456789AB crashed", "worker <id> crashed"),
        (f"digest sha256:{HASH} differs from {HASH}", "digest <hash> differs from <hash>"),
        ("segfault at 0x7ffe12ab, build 3f9c2d1, pod 01J9ZQ4X8K7V2M5N6P0R", "segfault at <id>, build <id>, pod <id>"),
        ("  two\n lines\t of   text ", "two lines of text"),
    ],
)
def test_failure_cause_masks_numbers_ids_and_hashes_and_collapses_whitespace(detail: str, cause: str) -> None:
    assert find_cause(detail) == cause


def test_long_failure_causes_are_shortened() -> None:
    assert find_cause("é" * 4000) == "é" * (MAX_CAUSE - 1) + "…"
    assert find_cause("g" * MAX_CAUSE) == "g" * MAX_CAUSE
    assert find_cause("1" * 30) == "<number>"
    assert len(find_cause("a 1 " * 1000)) == MAX_CAUSE
