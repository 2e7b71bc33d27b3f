"""The one POSIX (ustar) archive of a set of files: no library's defaults reach its bytes."""

from __future__ import annotations

from collections.abc import Mapping

_BLOCK = 512
# The record size of tar(1); archives are filled up to it.
_RECORD = 20 * _BLOCK
_NAME = 100
_SIZE = slice(124, 136)


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the archive: entries sorted by name, regular files of mode 0644, no owner, no time."""
    archive = bytearray()
    for name, data in sorted(files.items()):
        archive += _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)
    archive += bytes(2 * _BLOCK)
    return bytes(archive) + bytes(-len(archive) % _RECORD)


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive that ``pack`` made; any other bytes are a ``ValueError``.

    Names and sizes are read naively: packing the result again must give the same bytes, so a link, a
    duplicate, another order, a changed header or anything after the end can't pass.
    """
    files: dict[str, bytes] = {}
    offset = 0
    while any(header := archive[offset : offset + _BLOCK]):
        name = header[:_NAME].rstrip(b"\0").decode("ascii")
        size = header[_SIZE].rstrip(b"\0")
        if not size.isdigit():  # a sign would walk backwards
            raise ValueError("a header is damaged")
        end = offset + _BLOCK + int(size, 8)
        files[name] = archive[offset + _BLOCK : end]
        offset = end + -end % _BLOCK
    if pack(files) != archive:
        raise ValueError("not the canonical archive of its files")
    return files


def _header(name: str, size: int) -> bytes:
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= _NAME:
        raise ValueError("an entry's name has 1 to 100 characters")
    fields = (
        encoded.ljust(_NAME, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0" * 2,  # uid, gid
        b"%011o\0" % size,
        b"%011o\0" % 0,  # mtime
        b" " * 8,  # the checksum counts itself as spaces
        b"0".ljust(101, b"\0"),  # a regular file, no link name
        b"ustar\x0000",
    )
    header = b"".join(fields).ljust(_BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
