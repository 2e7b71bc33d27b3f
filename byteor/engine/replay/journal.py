"""The formats of a journal file (``BYTJ``) and of the frames of an egress, which are both read as streams.

Journals are written in version 2, in which the CRC of a record also covers the record's length, sequence and time. The
CRC therefore detects zeros and a changed length.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

MAX_PAYLOAD = 128 * 1024 * 1024  # bytes; the records of a replay may have no more in total, so none can be longer

_HEADER = struct.Struct("<4sHH")
_RECORD = struct.Struct("<IQQI")
_HEAD = struct.Struct("<IQQ")  # a record's header without its CRC
RECORD_HEADER = _RECORD.size
_FRAME = struct.Struct("<IQ")
_MAGIC = b"BYTJ"
_VERSIONS = (1, 2)
_CHUNK = 256 * 1024
# bytes; if a larger part of a payload is not in the buffer yet, the payload is read without copying it, because two
# copies of the longest payload take 256 MiB
_LARGE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a lane; ``unix_ns`` is when it was written, in nanoseconds since 1970."""

    sequence: int
    unix_ns: int
    payload: bytes


type Row = tuple[int, int, int, bytes]
"""A record in its journal: offset, sequence, time and payload."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of an egress; ``sequence`` is the sequence of the input record that produced it."""

    sequence: int
    payload: bytes


class BadJournal(Exception):
    """Raised for a file that is not a journal, or has a damaged record or frame at the byte ``offset``."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(f"{detail} at offset {offset}")
        self.offset = offset
        self.detail = detail


def encode_journal(records: Iterable[Record], version: int = 2) -> bytes:
    """Return the bytes of a journal, with the records in the given order."""
    parts = [_HEADER.pack(_MAGIC, version, 0)]
    for record in records:
        head = _HEAD.pack(len(record.payload), record.sequence, record.unix_ns)
        crc = zlib.crc32(record.payload, 0 if version == 1 else zlib.crc32(head))
        parts += (head, crc.to_bytes(4, "little"), record.payload)
    return b"".join(parts)


class JournalReader:
    """Iterates once over the records of a journal, in file order.

    Raises BadJournal for an invalid header, or at a record that is too long or has a bad CRC. If only the end of the
    journal is damaged, the iteration stops and ``warning`` is set: the last record is incomplete (a torn tail), or
    zeros fill the rest of the file, or a record has a bad CRC and at most such a tail follows. ``offset`` is
    where the latest record begins, unless ``rows`` is used. After the iteration, ``end`` is the end of the last record
    that was returned.
    """

    def __init__(self, source: BinaryIO, *, checks_crc: bool = True) -> None:
        self.warning: str | None = None
        self.offset = 0
        self.end = 0
        self._source = source
        self._checks_crc = checks_crc

    def __iter__(self) -> Iterator[Record]:
        for offset, sequence, unix_ns, payload in self.rows():
            self.offset = offset
            yield Record(sequence, unix_ns, payload)

    def rows(self) -> Iterator[Row]:
        """Yield the records as rows, which is faster than creating ``Record`` objects."""
        # Replays spend much of their time here, so the file is read in chunks and functions have local names.
        unpack, crc32, header_size = _RECORD.unpack_from, zlib.crc32, _RECORD.size
        source, checks_crc = self._source, self._checks_crc
        is_first_version = _read_version(source) == 1
        file = _File(source)
        base, at, buffer = _HEADER.size, 0, b""
        while True:
            missing, end = header_size, len(buffer)
            while (start := at + header_size) <= end:
                length, sequence, unix_ns, crc = unpack(buffer, at)
                if (stop := start + length) > end:
                    if base + stop > file.size:
                        return self._finish(base + at, f"torn tail: the record at offset {base + at} is cut off")
                    if length > MAX_PAYLOAD:
                        raise BadJournal(
                            base + at, f"record of {length} bytes exceeds the limit of {MAX_PAYLOAD} bytes"
                        )
                    missing = stop - end
                    break
                payload = buffer[start:stop]
                if is_first_version:
                    # Zeros are a valid record of version 1, unless they fill the rest of the file.
                    is_zero = not (crc or length or sequence or unix_ns) and base + at >= file.zeros_from
                    fits = not is_zero and (not checks_crc or crc32(payload) == crc)
                else:
                    fits = not checks_crc or crc32(payload, crc32(buffer[at : start - 4])) == crc
                if not fits:
                    return self._finish(base + at, file.tail_warning(base + at, base + stop, sequence))
                yield base + at, sequence, unix_ns, payload
                at = stop
            base, rest = base + at, buffer[at:]
            if missing > _LARGE:
                source.seek(header_size - len(rest), os.SEEK_CUR)
                payload = buffer = more = b""  # release the previous record
                payload = _read(source, length)
                if len(payload) < length:
                    return self._finish(base, f"torn tail: the record at offset {base} is cut off")
                head = b"" if is_first_version else rest[: header_size - 4]
                if checks_crc and crc32(payload, crc32(head)) != crc:
                    stop = base + header_size + length
                    return self._finish(base, file.tail_warning(base, stop, sequence))
                yield base, sequence, unix_ns, payload
                base, at = base + header_size + length, 0
                continue
            if not (more := _read(source, max(_CHUNK, missing))):
                return self._finish(base, f"torn tail: the record at offset {base} is cut off" if rest else None)
            at, buffer = 0, rest + more

    def _finish(self, end: int, warning: str | None) -> None:
        self.end, self.warning = end, warning

    def payload_bytes(self, records: int) -> int:
        """Return the size of all payloads, after an iteration that found this many records."""
        return self.end - _HEADER.size - records * _RECORD.size


class _File:
    """Looks ahead in a journal file without changing its position."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        position = source.tell()
        self.size = source.seek(0, os.SEEK_END)
        source.seek(position)

    @cached_property
    def zeros_from(self) -> int:
        """The offset from which zeros fill the rest of the file."""
        position, end = self._source.tell(), self.size
        while end:
            start = max(0, end - _CHUNK)
            self._source.seek(start)
            if text := self._source.read(end - start).rstrip(b"\0"):
                end = start + len(text)
                break
            end = start
        self._source.seek(position)
        return end

    def tail_warning(self, offset: int, end: int, sequence: int) -> str:
        """Return the warning about the last record, which is damaged and extends from ``offset`` to ``end``.

        Raises BadJournal if anything but zeros or an incomplete record follows.
        """
        if offset >= self.zeros_from:
            return f"zeros instead of a record at offset {offset}"
        if end < self.zeros_from and not self._is_torn(end):
            raise BadJournal(offset, f"bad CRC of record {sequence}")
        return f"bad CRC of the last record at offset {offset}"

    def _is_torn(self, offset: int) -> bool:
        """Return whether the record at ``offset`` extends beyond the end of the file."""
        position = self._source.tell()
        self._source.seek(offset)
        head = self._source.read(_RECORD.size)
        self._source.seek(position)
        return len(head) < _RECORD.size or offset + _RECORD.size + _length(head) > self.size


def _read_version(source: BinaryIO) -> int:
    header = _read(source, _HEADER.size)
    if len(header) < _HEADER.size or header[:4] != _MAGIC:
        raise BadJournal(0, "no BYTJ journal header")
    version: int
    _, version, flags = _HEADER.unpack(header)
    if version not in _VERSIONS or flags:
        raise BadJournal(4, f"unknown journal version {version} or flags {flags}")
    return version


def read_head(source: BinaryIO, offset: int) -> tuple[int, int, int]:
    """Read the payload length, the sequence and the time of the record at an offset that a reader returned."""
    source.seek(offset)
    length, sequence, unix_ns = _HEAD.unpack(source.read(_RECORD.size)[: _HEAD.size])
    return length, sequence, unix_ns


def read_record(source: BinaryIO, offset: int, max_bytes: int | None = None) -> Record:
    """Read the record at an offset that a reader returned, with at most ``max_bytes`` of its payload."""
    length, sequence, unix_ns = read_head(source, offset)
    return Record(sequence, unix_ns, source.read(length if max_bytes is None else min(length, max_bytes)))


pack_frame_head = _FRAME.pack
"""Packs the header of a frame: the length of its payload, and its sequence."""


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame, as in ``expected/<egress>.bin`` and in the digest of an egress."""
    return pack_frame_head(len(frame.payload), frame.sequence) + frame.payload


def read_frames(source: BinaryIO) -> Iterator[Frame]:
    """Yield the frames of a file. Raises BadJournal if a frame is incomplete or too long."""
    at = 0
    while head := _read(source, _FRAME.size):
        if len(head) < _FRAME.size or _length(head) > MAX_PAYLOAD:
            raise BadJournal(at, "frame is cut off or too long")
        length, sequence = _FRAME.unpack(head)
        payload = _read(source, length)
        if len(payload) < length:
            raise BadJournal(at, "frame is cut off")
        yield Frame(sequence, payload)
        at += _FRAME.size + length


def frames_digest(frames: Iterable[Frame]) -> str:
    """Return the hash of the frames in the given order, as ``sha256:<hex>``."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(encode_frame(frame))
    return f"sha256:{digest.hexdigest()}"


def _length(head: bytes) -> int:
    return int.from_bytes(head[:4], "little")


def _read(source: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes, or fewer at the end of the file.

    The bytes are read in chunks, because ``read(size)`` would first allocate the whole size, which may be huge if the
    length is damaged. If the file has that many bytes, a large size is read in one call, because joining chunks takes
    twice the memory.
    """
    if size > _LARGE:
        at = source.tell()
        is_there = source.seek(0, os.SEEK_END) - at >= size
        source.seek(at)
        if is_there:
            return source.read(size)
    parts = []
    while size and (part := source.read(min(size, _CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
