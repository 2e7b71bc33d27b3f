"""The journal file (``BYTJ``) and the frames of an egress: encode, and read as a stream."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_PAYLOAD = 128 * 1024 * 1024  # what a replay may select at most, so no longer record is of use

_HEADER = struct.Struct("<4sHH")
_RECORD = struct.Struct("<IQQI")
_FRAME = struct.Struct("<IQ")
_MAGIC = b"BYTJ"
_VERSION = 1
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a lane: its sequence, when it was written (Unix nanoseconds), its bytes."""

    sequence: int
    unix_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of an egress; its sequence is that of the input record it came from."""

    sequence: int
    payload: bytes


class BadJournal(Exception):
    """A file that is no journal or holds a damaged record; ``offset`` is the byte where it begins."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(f"{detail} at offset {offset}")
        self.offset = offset
        self.detail = detail


def encode_journal(records: Iterable[Record]) -> bytes:
    """A whole journal file; the order of the records is kept."""
    parts = [_HEADER.pack(_MAGIC, _VERSION, 0)]
    for record in records:
        crc = zlib.crc32(record.payload)
        parts += (_RECORD.pack(len(record.payload), record.sequence, record.unix_ns, crc), record.payload)
    return b"".join(parts)


class JournalReader:
    """Iterate once over a journal's records, in file order; ``BadJournal`` when a record is damaged.

    ``offset`` is where the latest record begins; ``warning`` is set when a torn tail (a last record that
    is cut off) ended the journal. A complete record with a bad CRC is damage wherever it stands.
    """

    def __init__(self, source: BinaryIO) -> None:
        self.warning: str | None = None
        self.offset = 0
        self._source = source

    def __iter__(self) -> Iterator[Record]:
        header = _read(self._source, _HEADER.size)
        if len(header) < _HEADER.size or header[:4] != _MAGIC:
            raise BadJournal(0, "no BYTJ journal header")
        _, version, flags = _HEADER.unpack(header)
        if (version, flags) != (_VERSION, 0):
            raise BadJournal(4, f"unknown journal version {version} or flags {flags}")
        at = _HEADER.size
        while head := _read(self._source, _RECORD.size):
            if len(head) < _RECORD.size or len(payload := self._payload(head, at)) < _length(head):
                self.warning = f"torn tail: the record at offset {at} is cut off"
                return
            _, sequence, unix_ns, crc = _RECORD.unpack(head)
            if zlib.crc32(payload) != crc:
                raise BadJournal(at, f"bad CRC of record {sequence}")
            self.offset = at
            at += _RECORD.size + len(payload)
            yield Record(sequence, unix_ns, payload)

    def _payload(self, head: bytes, at: int) -> bytes:
        if _length(head) > MAX_PAYLOAD:
            raise BadJournal(at, f"a record of {_length(head)} bytes, over the limit of {MAX_PAYLOAD}")
        return _read(self._source, _length(head))


def read_record(source: BinaryIO, offset: int) -> Record:
    """The record that a ``JournalReader`` found at this offset of the same file."""
    source.seek(offset)
    length, sequence, unix_ns, _ = _RECORD.unpack(source.read(_RECORD.size))
    return Record(sequence, unix_ns, source.read(length))


def encode_frame(frame: Frame) -> bytes:
    """The bytes of one frame, as they stand in ``expected/<egress>.bin`` and enter an egress's digest."""
    return _FRAME.pack(len(frame.payload), frame.sequence) + frame.payload


def read_frames(source: BinaryIO) -> Iterator[Frame]:
    """Iterate over the frames of a file; ``BadJournal`` when the last one is cut off."""
    at = 0
    while head := _read(source, _FRAME.size):
        if len(head) < _FRAME.size or _length(head) > MAX_PAYLOAD:
            raise BadJournal(at, "a frame that is cut off or too long")
        length, sequence = _FRAME.unpack(head)
        payload = _read(source, length)
        if len(payload) < length:
            raise BadJournal(at, "a frame that is cut off")
        yield Frame(sequence, payload)
        at += _FRAME.size + length


def frames_digest(frames: Iterable[Frame]) -> str:
    """``sha256:<hex>`` over the frames' bytes, in the order given."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(encode_frame(frame))
    return f"sha256:{digest.hexdigest()}"


def _length(head: bytes) -> int:
    return int.from_bytes(head[:4], "little")


def _read(source: BinaryIO, size: int) -> bytes:
    """At most ``size`` bytes, less only at the end: in pieces, as read(size) allocates first."""
    parts = []
    while size and (part := source.read(min(size, _CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
