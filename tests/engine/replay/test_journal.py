from contextlib import suppress
from io import SEEK_END, BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.replay import journal
from byteor.engine.replay.journal import (
    BadJournal,
    Frame,
    JournalReader,
    Record,
    encode_frame,
    encode_journal,
    frames_digest,
    read_frames,
    read_record,
)

GOLDEN = Path(__file__).parent / "golden"
RECORDS = [
    Record(1, 1_700_000_000_000_000_000, b'{"bid": 1}'),
    Record(2**64 - 1, 2**64 - 1, b""),
    Record(0, 0, b"\0"),
]
FRAMES = [Frame(1, b'{"bid":1}'), Frame(2**64 - 1, b"")]

u64 = st.integers(0, 2**64 - 1)
records = st.lists(st.builds(Record, u64, u64, st.binary(max_size=40)), max_size=6)
frames = st.lists(st.builds(Frame, u64, st.binary(max_size=40)), max_size=6)


def read(data: bytes) -> tuple[list[Record], str | None]:
    reader = JournalReader(BytesIO(data))
    return list(reader), reader.warning


@given(records)
def test_journal_round_trips_except_for_trailing_zero_records_in_version_1(items: list[Record]) -> None:
    assert read(encode_journal(items)) == (items, None)
    last = next((at for at, item in reversed([*enumerate(items, 1)]) if item != Record(0, 0, b"")), 0)
    zeros = f"zeros instead of a record at offset {len(encode_journal(items[:last]))}"
    assert read(encode_journal(items, version=1)) == (items[:last], zeros if items[last:] else None)


@given(records.filter(bool), st.data())
def test_truncated_journal_yields_complete_records_and_warns_about_torn_record(
    items: list[Record], data: st.DataObject
) -> None:
    whole = encode_journal(items)
    cut = data.draw(st.integers(8, len(whole) - 1))
    ends = [len(encode_journal(items[:count])) for count in range(len(items) + 1)]
    complete = sum(end <= cut for end in ends) - 1

    found, warning = read(whole[:cut])

    assert found == items[:complete]
    torn = f"torn tail: the record at offset {ends[complete]} is cut off"
    assert warning == (None if cut in ends else torn)


@given(records.filter(bool), st.data())
def test_error_about_flipped_payload_bit_names_offset(items: list[Record], data: st.DataObject) -> None:
    items = [*items, Record(7, 7, b"payload"), Record(8, 8, b"last")]
    whole = bytearray(encode_journal(items))
    index = data.draw(st.sampled_from([at for at, item in enumerate(items[:-1]) if item.payload]))
    offset = len(encode_journal(items[:index]))
    whole[offset + 24] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(BadJournal) as caught:
        read(bytes(whole))

    assert caught.value.offset == offset
    assert str(caught.value) == f"bad CRC of record {items[index].sequence} at offset {offset}"


@pytest.mark.parametrize("version", [1, 2])
def test_bad_crc_of_last_record_causes_warning(version: int) -> None:
    whole = bytearray(encode_journal(RECORDS, version))
    whole[-1] ^= 1

    found, warning = read(bytes(whole))

    assert found == RECORDS[:-1]
    assert warning == "bad CRC of the last record at offset 66"


TAILS = {
    "zeros": bytes(96),
    "few zeros": bytes(5),
    "cut head": b"\1" * 23,
    "cut payload": encode_journal([Record(9, 9, b"cut")])[8:-1],
    "length far beyond the end": b"\xff" * 4 + bytes(20) + b"rest",
    "length over the limit": (200 * 1024 * 1024).to_bytes(4, "little") + bytes(20),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("is_damaged", [False, True])
def test_damaged_tail_ends_journal_with_warning(tail: bytes, version: int, is_damaged: bool) -> None:
    whole = bytearray(encode_journal(RECORDS, version) + tail)
    if is_damaged:
        whole[len(whole) - len(tail) - 1] ^= 1

    found, warning = read(bytes(whole))

    if is_damaged:
        assert (found, warning) == (RECORDS[:-1], "bad CRC of the last record at offset 66")
    else:
        is_zeros = tail == bytes(96)
        expected = (
            "zeros instead of a record at offset 91" if is_zeros else "torn tail: the record at offset 91 is cut off"
        )
        assert (found, warning) == (RECORDS, expected)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("behind", [encode_journal([Record(9, 9, b"next")])[8:], bytes(60) + b"\1" + bytes(60)])
def test_bad_crc_before_further_records_raises_error(behind: bytes, version: int) -> None:
    whole = bytearray(encode_journal(RECORDS, version) + behind)
    whole[len(whole) - len(behind) - 1] ^= 1

    with pytest.raises(BadJournal, match="bad CRC of record 0 at offset 66"):
        read(bytes(whole))


def test_zeros_before_other_records_are_valid_only_in_version_1() -> None:
    last = Record(5, 5, b"last")
    zeros = Record(0, 0, b"")
    assert read(encode_journal([*RECORDS, zeros, zeros, last], 1)) == ([*RECORDS, zeros, zeros, last], None)
    with pytest.raises(BadJournal, match="bad CRC of record 0 at offset 91"):
        read(encode_journal(RECORDS) + bytes(48) + encode_journal([last])[8:])


def test_version_2_crc_covers_record_header() -> None:
    whole = encode_journal(RECORDS)
    for at in range(8, 28):  # the first record's length, sequence and time
        changed = bytearray(whole)
        changed[at] ^= 1
        with suppress(BadJournal):
            assert RECORDS[0] not in read(bytes(changed))[0]


@pytest.mark.parametrize("data", [b"", b"BYTJ", b"BYTJ\1\0\0", b"BYTK\1\0\0\0", b"\0" * 8])
def test_file_without_journal_header_is_refused(data: bytes) -> None:
    with pytest.raises(BadJournal, match="no BYTJ journal header at offset 0"):
        read(data)


@pytest.mark.parametrize("data", [b"BYTJ\3\0\0\0", b"BYTJ\2\0\1\0", b"BYTJ\1\0\1\0", b"BYTJ\0\1\0\0"])
def test_unknown_version_or_flag_is_refused(data: bytes) -> None:
    with pytest.raises(BadJournal, match="unknown journal version"):
        read(data)


class Watched(BytesIO):
    """A file that records the size of the largest read."""

    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size >= 0
        self.largest = max(self.largest, size)
        return super().read(size)


def test_record_with_false_length_is_read_in_chunks() -> None:
    length = (100 * 1024 * 1024).to_bytes(4, "little")
    source = Watched(b"BYTJ\1\0\0\0" + length + b"\0" * 20 + b"short")
    reader = JournalReader(source)

    assert list(reader) == []
    assert reader.warning == "torn tail: the record at offset 8 is cut off"
    assert source.largest == 256 * 1024

    source = Watched(length + b"\0" * 8 + b"short")
    with pytest.raises(BadJournal):
        list(read_frames(source))
    assert source.largest == 256 * 1024


class Sparse(BytesIO):
    """A file that claims to be large enough for any record."""

    def seek(self, offset: int, whence: int = 0) -> int:
        found = super().seek(offset, whence)
        return 2**33 if whence == SEEK_END else found


def test_length_over_limit_raises_error() -> None:
    with pytest.raises(BadJournal, match="record of 4294967295 bytes exceeds the limit of 134217728 bytes at offset 8"):
        list(JournalReader(Sparse(b"BYTJ\1\0\0\0" + b"\xff" * 4 + b"\0" * 20)))
    with pytest.raises(BadJournal, match="frame is cut off or too long at offset 0"):
        list(read_frames(BytesIO(b"\xff" * 4 + b"\0" * 8)))


def test_record_larger_than_chunk_is_read_completely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_CHUNK", 3)
    assert read(encode_journal(RECORDS)) == (RECORDS, None)


def test_record_can_be_read_again_at_its_offset() -> None:
    source = BytesIO(encode_journal(RECORDS))
    reader = JournalReader(source)
    offsets = [reader.offset for _ in reader]

    assert [read_record(source, offset) for offset in reversed(offsets)] == RECORDS[::-1]


@given(frames)
def test_frames_round_trip(items: list[Frame]) -> None:
    data = b"".join(encode_frame(item) for item in items)

    assert list(read_frames(BytesIO(data))) == items


@given(frames.filter(bool), st.data())
def test_frames_cut_off_inside_frame_raise_error(items: list[Frame], data: st.DataObject) -> None:
    whole = b"".join(encode_frame(item) for item in items)
    ends = {len(b"".join(encode_frame(item) for item in items[:count])) for count in range(len(items))}
    cut = data.draw(st.integers(0, len(whole) - 1).filter(lambda cut: cut not in ends))

    with pytest.raises(BadJournal, match="cut off") as caught:
        list(read_frames(BytesIO(whole[:cut])))

    assert caught.value.offset == max(end for end in ends if end < cut)


def test_version_1_journal_format_matches_earlier_releases() -> None:
    data = (GOLDEN / "journal.bin").read_bytes()

    assert read(data) == (RECORDS, None)
    assert encode_journal(RECORDS, version=1) == data


def test_frame_format_and_digest_match_earlier_releases() -> None:
    data = (GOLDEN / "frames.bin").read_bytes()

    assert list(read_frames(BytesIO(data))) == FRAMES
    assert frames_digest(FRAMES) == (GOLDEN / "frames.sha256").read_text().strip()


@pytest.mark.parametrize("version", [1, 2])
def test_large_records_are_read_and_checked(version: int) -> None:
    large = b"x" * (5 * 1024 * 1024)
    records = [Record(1, 10, b"a"), Record(2, 11, large), Record(3, 12, b"b"), Record(4, 13, large)]
    written = encode_journal(records, version)

    assert list(JournalReader(BytesIO(written))) == records
    bad = written[:-1] + b"y"
    for damaged, warning in (
        (written[:-1], "torn tail"),
        (bad, "bad CRC of the last record"),
        (bad + bytes(100), "bad CRC of the last record"),
        (bad + encode_journal([Record(5, 14, large)], version)[8:-1], "bad CRC of the last record"),
    ):
        reader = JournalReader(BytesIO(damaged))
        assert list(reader) == records[:3]
        assert str(reader.warning).startswith(warning)
        assert reader.end == len(encode_journal(records[:3], version))
    in_the_middle = len(encode_journal(records[:1], version)) + 100
    with pytest.raises(BadJournal, match="bad CRC of record 2"):
        list(JournalReader(BytesIO(written[:in_the_middle] + b"y" + written[in_the_middle + 1 :])))
