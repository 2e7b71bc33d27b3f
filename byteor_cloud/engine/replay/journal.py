"""The formats of a journal file (``BYTJ``) and of the frames of an egress; both are read as streams."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_PAYLOAD = 128 * 1024 * 1024  # a replay selects no more bytes altogether, so it could not use a longer record

_HEADER = struct.Struct("<4sHH")
_RECORD = struct.Struct("<IQQI")
_FRAME = struct.Struct("<IQ")
_MAGIC = b"BYTJ"
_VERSION = 1
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a lane; ``unix_ns`` is when it was written, in nanoseconds since 1970."""

    sequence: int
    unix_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of an egress; ``sequence`` is the sequence of the input record that produced it."""

    sequence: int
    payload: bytes


class BadJournal(Exception):
    """The file is not a journal, or has a damaged record or frame, which begins at the byte ``offset``."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(f"{detail} at offset {offset}")
        self.offset = offset
        self.detail = detail


def encode_journal(records: Iterable[Record]) -> bytes:
    """Write a whole journal file, with the records in the given order."""
    parts = [_HEADER.pack(_MAGIC, _VERSION, 0)]
    for record in records:
        crc = zlib.crc32(record.payload)
        parts += (_RECORD.pack(len(record.payload), record.sequence, record.unix_ns, crc), record.payload)
    return b"".join(parts)


class JournalReader:
    """Iterates once over the records of a journal, in file order. Raises BadJournal at a record with a bad CRC.

    ``offset`` is the byte where the latest record begins. An incomplete last record (a torn tail) is no error: the
    iteration ends and ``warning`` is set.
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
            raise BadJournal(at, f"record of {_length(head)} bytes exceeds the limit of {MAX_PAYLOAD} bytes")
        return _read(self._source, _length(head))


def read_record(source: BinaryIO, offset: int) -> Record:
    """Read a record again, at the offset where a ``JournalReader`` found it."""
    source.seek(offset)
    length, sequence, unix_ns, _ = _RECORD.unpack(source.read(_RECORD.size))
    return Record(sequence, unix_ns, source.read(length))


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame, as in ``expected/<egress>.bin`` and in the digest of an egress."""
    return _FRAME.pack(len(frame.payload), frame.sequence) + frame.payload


def read_frames(source: BinaryIO) -> Iterator[Frame]:
    """Iterate over the frames of a file. Raises BadJournal if the last one is incomplete."""
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

    It reads in chunks, since read(size) would allocate the whole size first, which a damaged length may exaggerate.
    """
    parts = []
    while size and (part := source.read(min(size, _CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
