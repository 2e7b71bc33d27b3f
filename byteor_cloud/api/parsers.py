"""Strict parsers of JSON bodies and of uploads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, override

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler
from django.http import UnreadablePostError
from django.utils.http import parse_header_parameters
from rest_framework.parsers import BaseParser, MultiPartParser

from byteor.engine import strict_json
from byteor.engine.strict_json import JsonFault
from byteor_cloud.api import bodies, problems
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.computing.compute import Compute, here
from byteor_cloud.errors import InvalidInput, LengthRequired, PayloadTooLarge
from byteor_cloud.storage import blobs, space
from byteor_cloud.storage.blobs import ReceivedFile

MAX_DEPTH = 200
# ``compute`` parses longer JSON texts: 4 MiB take 50 ms, or 270 ms if the last value is invalid.
LONG_BYTES = 64 * 1024


def parse_json(data: bytes | str, *, compute: Compute = here) -> Any:
    """Read a client's strict JSON. ``compute`` parses long texts. Raises InvalidInput or the errors of ``compute``."""
    limits = strict_json.JsonLimits(max_depth=MAX_DEPTH)
    try:
        if len(data) <= LONG_BYTES:
            return strict_json.read(data, limits)
        return compute(strict_json.read, data, limits)
    except strict_json.MalformedJson as error:
        if error.fault is JsonFault.DEPTH:
            raise InvalidInput.at(
                error.pointer, f"The value is nested deeper than {MAX_DEPTH} levels.", code="too_deep"
            ) from None
        if error.fault is JsonFault.CHARACTER:
            raise InvalidInput.at(
                error.pointer, "The text contains a NUL character or a lone surrogate.", code="character"
            ) from None
        raise InvalidInput(f"The JSON is not valid: {error}", code="malformed_json") from None


class StrictJSONParser(BaseParser):
    """A parser of UTF-8 JSON without duplicate keys, NaN, infinities, NUL characters or lone surrogates."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the parsed value. Raises InvalidInput, PayloadTooLarge, RequestTimeout or Unavailable."""
        context = parser_context or {}
        cap: int = getattr(settings.CONFIG, context["view"].body_cap)
        request = context["request"]._request
        return parse_json(bodies.read_body(request, cap), compute=compute_for(request))


class _ReceivingHandler(FileUploadHandler):
    """An upload handler that streams a file to the disk, so that memory never holds the whole file."""

    chunk_size = 124 * 1024  # the most bytes that ``front_door.PacedSocket`` receives in one call

    def __init__(self, cap: int) -> None:
        super().__init__()
        self._cap = cap
        self._files: list[ReceivedFile] = []  # the last one is incomplete until ``file_complete``

    @override
    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        """Open a temporary file for the upload."""
        super().new_file(field_name, file_name, *args, **kwargs)
        self._files.append(blobs.receive(file_name))

    @override
    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Store the next chunk of the file. Raises PayloadTooLarge or OSError."""
        if start + len(raw_data) > self._cap:
            raise PayloadTooLarge(f"The file is larger than {self._cap} bytes.")
        self._files[-1].append(raw_data)

    @override
    def file_complete(self, file_size: int) -> ReceivedFile:
        """Return the complete file. If the blob store will keep this file itself, first wait until it is on the disk.

        The wait occupies no request slot.
        """
        self._files[-1].make_durable()
        return self._files[-1]

    @override
    def upload_interrupted(self) -> None:
        """Remove all files, including complete ones."""
        for file in self._files:
            file.close()


class _CountingStream:
    """A stream that counts the bytes read from it and keeps the last 512 bytes."""

    _TAIL = 512

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.count, self.tail = stream, 0, b""

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes."""
        data = self._stream.read(size)
        self.count += len(data)
        self.tail = (self.tail + data[-self._TAIL :])[-self._TAIL :]
        return data


class UploadParser(MultiPartParser):
    """A parser of multipart bodies. It streams files to the disk, hashes them, and rejects truncated bodies."""

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the fields and the files. After an error, no file is left.

        Raises DRF's ParseError for a malformed body, and OSError if the file cannot be written although the disk works.
        Raises Django's SuspiciousOperation if there are too many fields or files, or if the fields are too large.
        Also raises DomainErrors, such as LengthRequired, PayloadTooLarge, RequestTimeout or InsufficientStorage.
        """
        request = (parser_context or {})["request"]._request
        if bodies.is_chunked(request):
            raise LengthRequired("Send the upload with a Content-Length header.")
        declared = bodies.declared_length(request)
        handler = _ReceivingHandler(settings.CONFIG.max_upload_bytes)
        request.upload_handlers = [handler]
        watched = _CountingStream(stream)
        try:
            with bodies.waiting_for_client(request):
                parsed = super().parse(watched, media_type, parser_context)  # type: ignore[arg-type]  # DRF only calls read
        except UnreadablePostError as error:
            handler.upload_interrupted()
            raise bodies.interrupted_body_error(error) from None
        except OSError as error:  # not the client's fault: the temporary file could not be written
            handler.upload_interrupted()
            if space.is_disk_error(error):
                raise problems.full_disk_upload_error() from error
            raise
        except Exception:
            handler.upload_interrupted()
            raise
        boundary = (parse_header_parameters(media_type or "")[1].get("boundary") or "").encode()
        if watched.count != declared or not watched.tail.rstrip().endswith(b"--" + boundary + b"--"):
            handler.upload_interrupted()
            raise InvalidInput("The upload ended before its last part was complete. Send it again.", code="truncated")
        return parsed
