"""Tests of the results of ``make bench``: ratios of medians, the table, the file and the picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.results import Row, draw, load, ratio, save, table

ROWS = [
    ratio("heartbeat / bare <view>", {"heartbeat": [8, 9, 30], "bare <view>": [10, 10, 12]}, goal=0.7),
    Row("100 agents: p99", 300.0, 250.0, " ms", is_most=True, note="p50 3 ms"),
    Row("errors", 0, 0, is_most=True),
]


def test_ratio_row_contains_ratio_of_medians_and_range_over_rounds() -> None:
    row = ROWS[0]

    assert (row.value, row.low, row.high, row.is_reached) == (0.9, 0.8, 2.5, True)
    assert row.share == pytest.approx(0.9 / 0.7)
    assert [(each.is_reached, round(each.share, 2)) for each in ROWS[1:]] == [(False, 0.83), (True, 2.0)]


def test_table_shows_goals_and_whether_they_are_reached() -> None:
    lines = table(ROWS).splitlines()

    assert len({len(line) for line in lines[:5]}) == 1
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells == ["heartbeat / bare <view>", "0.90", "0.80 to 2.50", "≥ 0.70", "yes"]
    assert "| ≤ 250 ms | no " in lines[3]
    assert lines[5] == "100 agents: p99: p50 3 ms"


def test_saved_rows_load_unchanged_and_picture_is_well_formed(tmp_path: Path) -> None:
    save(tmp_path / "made" / "r.json", ROWS, {"cores": 2})
    draw(tmp_path / "made" / "r.svg", ROWS, "a & b")

    assert load(tmp_path / "made" / "r.json") == ROWS
    picture = ElementTree.parse(tmp_path / "made" / "r.svg").getroot()
    assert "heartbeat / bare <view>" in "".join(picture.itertext())
