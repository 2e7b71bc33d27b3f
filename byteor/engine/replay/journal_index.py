"""The index of a journal: a file with the offset of each record in sequence order, for direct access to any page.

The position of a record is its number, from 0, in sequence order (ties: file order). Times may run backwards, so the
index uses the highest time up to a record. These times are stored only if the journal's sequences or times decrease.

The file is a header, the offsets (u64 LE), and possibly the highest times (u64 LE). The header has the journal's size
and a digest of the journal's beginning and end. They reveal an index of another journal, or of an older version of this
journal, if the size, the beginning or the end differs.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from byteor.engine.replay.journal import RECORD_HEADER, JournalReader, Record, Row, read_head, read_record

_HEADER = struct.Struct("<4sHHQQ32s")  # magic, version, whether times are stored, size of the journal, records, digest
_MAGIC, _VERSION = b"BYTX", 1
_NUMBER = struct.Struct("<Q")
_ROW = struct.Struct("<QQQ")
_EDGE = 64 * 1024
_BATCH = 32 * 1024


class StaleIndex(ValueError):
    """Raised for a file that is not the index of this journal, and must be rebuilt."""


@dataclass(frozen=True, slots=True)
class JournalScan:
    """The result of reading a whole journal. ``is_ordered`` means that its sequences never decrease."""

    records: int
    payload_bytes: int
    is_ordered: bool
    warning: str | None


def scan_journal(source: BinaryIO, on_count: Callable[[int], None] | None = None) -> JournalScan:
    """Read a whole journal and check its CRCs. Raises BadJournal.

    ``on_count`` is called with the number of records so far.
    """
    reader = JournalReader(source)
    records = latest = 0
    is_ordered = True
    rows = reader.rows()
    while True:
        before = records
        for _, sequence, _, _ in islice(rows, _BATCH):
            records += 1
            if sequence < latest:
                is_ordered = False
            latest = sequence
        (on_count or _ignore)(records)
        if records < before + _BATCH:
            return JournalScan(records, reader.payload_bytes(records), is_ordered, reader.warning)


def build_index(journal: BinaryIO, target: BinaryIO, on_count: Callable[[int], None] | None = None) -> JournalScan:
    """Check a journal and write its index, without holding all records in memory. Raises BadJournal.

    ``on_count`` is called with the number of records so far, and from time to time while they are sorted.
    """
    on_count = on_count or _ignore
    target.write(bytes(_HEADER.size))
    reader = JournalReader(journal)
    records = latest = highest = 0
    is_ordered = is_timed = True
    rows = reader.rows()
    offsets: list[int] = [0]
    while offsets:
        offsets = []
        for offset, sequence, unix_ns, _ in islice(rows, _BATCH):
            offsets.append(offset)
            if sequence < latest:
                is_ordered = False
            if unix_ns < highest:
                is_timed = False
            latest, highest = sequence, unix_ns
        records += len(offsets)
        target.write(_packed(offsets))
        on_count(records)
    if not (is_ordered and is_timed):
        journal.seek(0)
        _write_sorted(journal, target, records, on_count)
    target.flush()
    is_own = is_ordered and is_timed
    target.seek(0)
    target.write(_HEADER.pack(_MAGIC, _VERSION, not is_own, _size(journal), records, _digest(journal)))
    target.flush()
    return JournalScan(records, reader.payload_bytes(records), is_ordered, reader.warning)


def _ignore(_records: int) -> None:
    """Ignore the number of records."""


def _write_sorted(journal: BinaryIO, target: BinaryIO, records: int, on_count: Callable[[int], None]) -> None:
    """Write the offsets and the highest times in sequence order, with an external merge sort."""
    times_at = _HEADER.size + records * _NUMBER.size
    highest = written = 0
    with tempfile.TemporaryFile(dir=_folder(target)) as spill:
        ordered = _merged_runs(JournalReader(journal, checks_crc=False), spill, records, on_count)
        while rows := list(islice(ordered, _BATCH)):
            target.seek(_HEADER.size + written * _NUMBER.size)
            target.write(_packed([offset for _, offset, _ in rows]))
            times = []
            for _, _, unix_ns in rows:
                highest = max(highest, unix_ns)
                times.append(highest)
            target.seek(times_at + written * _NUMBER.size)
            target.write(_packed(times))
            written += len(rows)
            on_count(records)


def _merged_runs(
    reader: JournalReader, spill: BinaryIO, records: int, on_count: Callable[[int], None]
) -> Iterator[tuple[int, int, int]]:
    """Yield the sequence, offset and time of each record, in sequence order.

    Sorts runs that fit in memory, then merges them.
    """
    rows = islice(reader.rows(), records)
    runs: list[int] = []
    while run := sorted((sequence, offset, unix_ns) for offset, sequence, unix_ns, _ in islice(rows, _BATCH)):
        spill.write(b"".join(_ROW.pack(*row) for row in run))
        runs.append(len(run))
        on_count(records)
    spill.flush()
    return heapq.merge(*(_run(spill.fileno(), number * _BATCH, size) for number, size in enumerate(runs)))


def _run(file: int, first: int, rows: int) -> Iterator[tuple[int, int, int]]:
    for at in range(first, first + rows, 512):
        chunk = os.pread(file, min(512, first + rows - at) * _ROW.size, at * _ROW.size)
        yield from _ROW.iter_unpack(chunk)


def _folder(target: BinaryIO) -> Path | None:
    name = getattr(target, "name", None)
    return Path(name).parent if isinstance(name, str) else None


def _packed(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _digest(journal: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    for at in (0, max(0, _size(journal) - _EDGE)):
        journal.seek(at)
        digest.update(journal.read(_EDGE))
    return digest.digest()


class JournalIndex:
    """Reads records of a journal by their position.

    Raises StaleIndex if it detects that the index is damaged or belongs to another journal.
    """

    def __init__(self, journal: BinaryIO, index: BinaryIO) -> None:
        self._journal, self._file = journal, index.fileno()
        self._index = index
        head = os.pread(self._file, _HEADER.size, 0)
        if len(head) < _HEADER.size:
            raise StaleIndex("the index is incomplete")
        magic, version, self._has_times, size, self.total, digest = _HEADER.unpack(head)
        if (magic, version) != (_MAGIC, _VERSION) or self._has_times not in (0, 1):
            raise StaleIndex("the file is not a journal index")
        if _size(index) != _HEADER.size + self.total * _NUMBER.size * (1 + self._has_times):
            raise StaleIndex("the index is incomplete")
        self._journal_size = _size(journal)
        if size != self._journal_size or digest != _digest(journal):
            raise StaleIndex("the index belongs to another journal")

    @classmethod
    def open(cls, journal: Path, index: Path) -> Self:
        """Open both files. The caller must close the index, or use it in a ``with`` statement.

        Raises StaleIndex, or FileNotFoundError if a file is missing.
        """
        source = journal.open("rb")
        try:
            target = index.open("rb")
        except OSError:
            source.close()
            raise
        try:
            return cls(source, target)
        except BaseException:
            source.close()
            target.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both files."""
        self._journal.close()
        self._index.close()

    def record(self, position: int, max_bytes: int | None = None) -> Record:
        """Return the record at a position, with at most ``max_bytes`` of its payload."""
        return self._record(self._number(position), max_bytes)

    def head(self, position: int) -> tuple[int, int, int]:
        """Return the payload length, the sequence and the time of the record at a position."""
        return self._head(self._number(position))

    def rows(self, first: int = 0) -> Iterator[Row]:
        """Yield the offset, sequence, time and payload of each record from position ``first`` on, in sequence order."""
        for at in range(first, self.total, 4096):
            chunk = os.pread(self._file, 4096 * _NUMBER.size, _HEADER.size + at * _NUMBER.size)
            for offset in array_of(chunk)[: self.total - at]:
                record = self._record(offset)
                yield offset, record.sequence, record.unix_ns, record.payload

    def find_sequence(self, sequence: int) -> int:
        """Return the position of the first record with at least this sequence, or ``total`` if there is none."""
        return self._first(lambda position: self.head(position)[1] >= sequence)

    def find_time(self, unix_ns: int) -> int:
        """Return the first position where the highest time so far reaches ``unix_ns``, or ``total`` if none does."""
        return self._first(lambda position: self._time(position) >= unix_ns)

    def positions(self, sequence: int) -> range:
        """Return the positions of the records with this sequence."""
        return range(self.find_sequence(sequence), self.find_sequence(sequence + 1))

    def _head(self, offset: int) -> tuple[int, int, int]:
        if offset + RECORD_HEADER > self._journal_size:
            raise StaleIndex("the index points beyond the end of the journal")
        head = read_head(self._journal, offset)
        if offset + RECORD_HEADER + head[0] > self._journal_size:
            raise StaleIndex("the index does not point to a record of the journal")
        return head

    def _record(self, offset: int, max_bytes: int | None = None) -> Record:
        self._head(offset)
        return read_record(self._journal, offset, max_bytes)

    def _time(self, position: int) -> int:
        return self._number(self.total + position) if self._has_times else self.head(position)[2]

    def _number(self, at: int) -> int:
        found: int = _NUMBER.unpack(os.pread(self._file, _NUMBER.size, _HEADER.size + at * _NUMBER.size))[0]
        return found

    def _first(self, is_reached: Callable[[int], bool]) -> int:
        low, high = 0, self.total
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if is_reached(middle) else (middle + 1, high)
        return low


def array_of(chunk: bytes) -> list[int]:
    """Return the complete numbers in a chunk of an index."""
    return [number for (number,) in _NUMBER.iter_unpack(chunk[: len(chunk) - len(chunk) % _NUMBER.size])]


def index_file(journal: Path, target: Path) -> JournalScan:
    """Build the index of a journal. ``target`` is created or replaced only by a complete index. Raises BadJournal."""
    part = target.with_name(target.name + ".part")
    try:
        with journal.open("rb") as source, part.open("w+b") as file:
            scan = build_index(source, file)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return scan
