"""Deterministic POSIX (ustar) archives, which do not depend on the defaults of a library."""

from __future__ import annotations

from collections.abc import Mapping

_BLOCK = 512
# The record size of tar(1); archives are padded to a multiple of it.
_RECORD = 20 * _BLOCK
_NAME = 100
_SIZE = slice(124, 136)
_TYPE = slice(156, 157)
_REGULAR_FILE = b"0"


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of regular files, sorted by name, with mode 0644 and without owner or time.

    Raises ValueError if a name does not consist of 1 to 100 ASCII characters.
    """
    archive = bytearray()
    for name, data in sorted(files.items()):
        archive += _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)
    archive += bytes(2 * _BLOCK)
    return bytes(archive) + bytes(-len(archive) % _RECORD)


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive that ``pack`` created. Raises ValueError for any other bytes.

    The parser can be simple, because packing the result again must yield the same bytes. This rules out links,
    duplicates, another order, changed headers and trailing data.
    """
    files: dict[str, bytes] = {}
    offset = 0
    while any(header := archive[offset : offset + _BLOCK]):
        name = header[:_NAME].rstrip(b"\0").decode("ascii")
        size = header[_SIZE].rstrip(b"\0")
        if not size.isdigit():  # int() would accept a minus sign, and the loop would go backwards
            raise ValueError("a header is damaged")
        if name in files:
            raise ValueError(f"{name!r} occurs twice")
        if header[_TYPE] != _REGULAR_FILE:
            raise ValueError(f"{name!r} is not a regular file")
        end = offset + _BLOCK + int(size, 8)
        files[name] = archive[offset + _BLOCK : end]
        offset = end + -end % _BLOCK
    if pack(files) != archive:
        raise ValueError("not the canonical archive of its files")
    return files


def _header(name: str, size: int) -> bytes:
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= _NAME:
        raise ValueError("an entry's name must have 1 to 100 characters")
    fields = (
        encoded.ljust(_NAME, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0" * 2,  # uid, gid
        b"%011o\0" % size,
        b"%011o\0" % 0,  # mtime
        b" " * 8,  # the checksum is computed with spaces in its own field
        _REGULAR_FILE.ljust(101, b"\0"),  # no link name
        b"ustar\x0000",
    )
    header = b"".join(fields).ljust(_BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
