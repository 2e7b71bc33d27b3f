"""HTTP/1.1 as bytes: writes requests and parses responses without a library.

A request takes 8 to 10 microseconds of one core; an aiohttp client takes 190 to 230 (docs/scale.md). This matters
because the simulator may share the machine with the server that it measures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEX = re.compile(rb"[0-9a-fA-F]{1,16}")
_HEAD_END = b"\r\n\r\n"
_MAX_HEAD = 64 * 1024


class BadResponse(Exception):
    """The bytes are not a valid HTTP/1.1 response."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    head: bytes
    body: bytes
    keeps_connection: bool

    def header(self, name: bytes) -> bytes | None:
        """Return a header's value in lower case, or None if it is missing. ``name`` must be in lower case."""
        return _find_header(self.head, name)

    @property
    def retry_after_s(self) -> float | None:
        """The seconds of ``Retry-After``; None if it is missing or not a number of seconds."""
        value = self.header(b"retry-after")
        return float(value) if value is not None and value.isdigit() else None


def write_request(
    method: str, path: str, *, host: str, token: str | None = None, body: bytes | None = None, extra: str = ""
) -> bytes:
    """Return the bytes of a request. ``extra`` contains additional header lines."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body is not None else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}{content}{extra}\r\n".encode() + (body or b"")


def read_response(data: bytes, *, is_closed: bool = False) -> Response | None:
    """Parse the response at the start of ``data``; None if it is incomplete. Raises BadResponse.

    ``is_closed`` is True if the connection was closed, which marks the end of a body without a length.
    """
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        if len(data) > _MAX_HEAD or is_closed or not (data[:9] == b"HTTP/1.1 "[: len(data)]):
            raise BadResponse("not an HTTP/1.1 response")
        return None
    head, begin = data[:head_end].lower(), head_end + len(_HEAD_END)
    try:
        status = int(head[9:12])
    except ValueError:
        raise BadResponse("not an HTTP/1.1 response") from None
    keeps = b"\r\nconnection: close" not in head
    length = _find_header(head, b"content-length")
    if length is not None:
        if not length.isdigit():
            raise BadResponse("invalid Content-Length")
        end = begin + int(length)
        return Response(status, head, data[begin:end], keeps) if len(data) >= end else None
    if _find_header(head, b"transfer-encoding") is not None:
        body = _read_chunks(data, begin)
        return None if body is None else Response(status, head, body, keeps)
    if status in {204, 304}:
        return Response(status, head, b"", keeps)
    return Response(status, head, data[begin:], keeps_connection=False) if is_closed else None


def _find_header(head: bytes, name: bytes) -> bytes | None:
    begin = head.find(b"\r\n" + name + b":")
    if begin < 0:
        return None
    begin += len(name) + 3
    end = head.find(b"\r\n", begin)
    return head[begin : end if end >= 0 else len(head)].strip()


def _read_chunks(data: bytes, begin: int) -> bytes | None:
    """Return the body of a chunked response; None if it is incomplete."""
    pieces: list[bytes] = []
    while (line_end := data.find(b"\r\n", begin)) >= 0:
        size_text = data[begin:line_end].split(b";")[0].strip()
        if not _HEX.fullmatch(size_text):  # int() accepts negative sizes, which would make this loop endless
            raise BadResponse("invalid chunked response")
        size = int(size_text, 16)
        begin = line_end + 2
        if size == 0:
            return b"".join(pieces) if data.startswith(b"\r\n", begin) else None
        pieces.append(data[begin : begin + size])
        begin += size + 2
    return None
