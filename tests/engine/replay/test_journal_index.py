"""Tests of the index of a journal and of the pages that are read through it."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.replay import (
    BadJournal,
    JournalIndex,
    Record,
    StaleIndex,
    encode_journal,
    index_file,
    journal_index,
    journal_page,
)
from tests.memory import MIB

times = st.integers(0, 20)
records = st.lists(st.builds(Record, st.integers(0, 15), times, st.binary(max_size=5)), max_size=30)


def indexed(folder: Path, items: list[Record]) -> JournalIndex:
    journal, index = folder / "in.bin", folder / "in.idx"
    journal.write_bytes(encode_journal(items))
    index_file(journal, index)
    return JournalIndex.open(journal, index)


@given(records, st.sampled_from([1, 3, 1000]))
def test_index_finds_every_record_by_position_sequence_and_time(
    tmp_path_factory: pytest.TempPathFactory, items: list[Record], batch: int
) -> None:
    ordered = sorted(items, key=lambda record: record.sequence)
    highest = [max(record.unix_ns for record in ordered[: at + 1]) for at in range(len(ordered))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_index, "_BATCH", batch)
        opened = indexed(tmp_path_factory.mktemp("index"), items)

    with opened as index:
        assert index.total == len(items)
        assert [index.record(at) for at in range(len(items))] == ordered
        assert [row[1:] for row in index.rows(2)] == [(r.sequence, r.unix_ns, r.payload) for r in ordered[2:]]
        for number in range(22):
            below = sum(record.sequence < number for record in ordered)
            assert index.find_sequence(number) == below
            assert index.positions(number) == range(below, below + sum(r.sequence == number for r in ordered))
            assert index.find_time(number) == sum(time < number for time in highest)


def test_damaged_index_and_index_of_changed_journal_are_refused(tmp_path: Path) -> None:
    items = [Record(number, number, b"x" * 100) for number in range(2000)]
    indexed(tmp_path, items).close()
    journal, index = tmp_path / "in.bin", tmp_path / "in.idx"
    whole, built = journal.read_bytes(), index.read_bytes()

    for changed in (whole[:-1], whole + b"x", whole[:40] + b"y" + whole[41:], whole[:-1] + b"y"):
        journal.write_bytes(changed)
        with pytest.raises(StaleIndex, match="belongs to another journal"):
            JournalIndex.open(journal, index)
    journal.write_bytes(whole)
    for broken in (b"", built[:30], built[:-8], built + b"x", b"X" + built[1:]):
        index.write_bytes(broken)
        with pytest.raises(StaleIndex):
            JournalIndex.open(journal, index)


def test_bad_journal_is_not_indexed(tmp_path: Path) -> None:
    journal = tmp_path / "in.bin"
    journal.write_bytes(encode_journal([Record(1, 1, b"a"), Record(2, 2, b"b")]).replace(b"a", b"c"))

    with pytest.raises(BadJournal):
        index_file(journal, tmp_path / "in.idx")

    assert list(tmp_path.iterdir()) == [journal]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_not_accepted_as_index(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("index")
    (folder / "in.bin").write_bytes(encode_journal([Record(1, 1, b"a")]))
    (folder / "in.idx").write_bytes(data)
    opened = len(os.listdir("/proc/self/fd"))

    with pytest.raises(StaleIndex):
        JournalIndex.open(folder / "in.bin", folder / "in.idx")

    with suppress(OSError):
        assert len(os.listdir("/proc/self/fd")) == opened


def test_page_shows_records_in_order_from_position_sequence_or_time(tmp_path: Path) -> None:
    items = [Record(10 + number, 100 * number, b'{"n":%d}' % number) for number in range(5)]
    items[3] = Record(13, 300, b"\xff")
    with indexed(tmp_path, items) as index:
        first = journal_page(index, "in", limit=2)
        assert first == {
            "lane": "in",
            "total": 5,
            "results": [
                {"position": at, "sequence": 10 + at, "time": f"1970-01-01T00:00:00.000000{at}00Z", "size": 7,
                 "json": {"n": at}, "payload_base64": None, "truncated": False}
                for at in (0, 1)
            ],
            "truncated": False,
            "next_after": 1,
        }  # fmt: skip
        second = journal_page(index, "in", after=1, limit=2)
        assert [found["position"] for found in second["results"]] == [2, 3]
        assert second["results"][1] | {"position": 0} == {
            "position": 0, "sequence": 13, "time": "1970-01-01T00:00:00.000000300Z", "size": 1, "json": None,
            "payload_base64": "/w==", "truncated": False,
        }  # fmt: skip
        assert [found["position"] for found in journal_page(index, "in", sequence=12)["results"]] == [2, 3, 4]
        assert [found["position"] for found in journal_page(index, "in", unix_ns=301)["results"]] == [4]
        for nothing in (journal_page(index, "in", after=4), journal_page(index, "in", sequence=99)):
            assert (nothing["results"], nothing["next_after"]) == ([], None)


def test_long_payload_is_cut_and_page_has_limited_size(tmp_path: Path) -> None:
    size = 64 * 1024
    items = [Record(number, 0, b'"' + b"x" * size + b'"') for number in range(200)]
    with indexed(tmp_path, items) as index:
        page = journal_page(index, "in", limit=200)

        rest = journal_page(index, "in", after=page["next_after"], limit=200 - len(page["results"]))

    shown = len(page["results"])
    assert 3 * MIB < len(json.dumps(page)) < 4 * MIB
    assert (page["truncated"], page["next_after"], rest["results"][0]["position"]) == (True, shown - 1, shown)
    found = page["results"][0]
    assert (found["size"], found["json"], found["truncated"], len(found["payload_base64"])) == (
        size + 2, None, True, (size + 2) // 3 * 4,
    )  # fmt: skip
