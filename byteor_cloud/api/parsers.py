"""Strict parsers for request bodies. They refuse what PostgreSQL cannot store and what two parsers read differently."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import UnreadablePostError
from django.utils.http import parse_header_parameters
from rest_framework.parsers import BaseParser, MultiPartParser

from byteor_cloud import space
from byteor_cloud.api import bodies, problems
from byteor_cloud.engine import strict_json
from byteor_cloud.engine.strict_json import JsonFault
from byteor_cloud.errors import InvalidInput, LengthRequired, PayloadTooLarge
from byteor_cloud.offload import run_in_thread

MAX_DEPTH = 200
LONG_BYTES = 64 * 1024  # longer texts are parsed in another thread, since they would hold up the event loop


def parse_json(data: bytes | str) -> Any:
    """Read strict JSON from a client. Raises InvalidInput."""
    limits = strict_json.JsonLimits(max_depth=MAX_DEPTH)
    try:
        if len(data) <= LONG_BYTES:
            return strict_json.read(data, limits)
        return run_in_thread(strict_json.read, data, limits)
    except strict_json.MalformedJson as error:
        if error.fault is JsonFault.DEPTH:
            raise InvalidInput.at(
                error.pointer, f"The value is nested deeper than {MAX_DEPTH} levels.", code="too_deep"
            ) from None
        if error.fault is JsonFault.CHARACTER:
            raise InvalidInput.at(
                error.pointer, "The text contains a NUL character or a lone surrogate.", code="character"
            ) from None
        raise InvalidInput(f"The body is not valid JSON: {error}", code="malformed_json") from None


class StrictJSONParser(BaseParser):
    """A parser of UTF-8 JSON without duplicate keys, NaN, infinities, NUL characters or lone surrogates."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the parsed value. Raises InvalidInput, PayloadTooLarge or RequestTimeout."""
        context = parser_context or {}
        cap: int = getattr(settings.CONFIG, context["view"].body_cap)
        return parse_json(bodies.read_body(context["request"]._request, cap))


class _HashingHandler(TemporaryFileUploadHandler):
    """An upload handler that streams a file to disk and hashes it on the way, so that it is never whole in memory."""

    def __init__(self, cap: int) -> None:
        super().__init__()
        self._cap, self._received, self._digest = cap, 0, hashlib.sha256()

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Start a new file and a new hash."""
        os.makedirs(settings.FILE_UPLOAD_TEMP_DIR, mode=0o700, exist_ok=True)
        self._received, self._digest = 0, hashlib.sha256()
        super().new_file(*args, **kwargs)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Hash and store the next chunk of the file. Raises PayloadTooLarge."""
        self._received += len(raw_data)
        if self._received > self._cap:
            raise PayloadTooLarge(f"The file is larger than {self._cap} bytes.")
        self._digest.update(raw_data)
        super().receive_data_chunk(raw_data, start)

    def file_complete(self, file_size: int) -> UploadedFile[Any] | None:
        """Return the file with its ``content_hash``."""
        file = super().file_complete(file_size)
        file.content_hash = f"sha256:{self._digest.hexdigest()}"  # type: ignore[union-attr]  # read by the upload's view
        return file


class _CountingStream:
    """A stream that counts the bytes that are read from it, and keeps the last bytes."""

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
    """A parser of multipart bodies with one file. It streams the file to disk, hashes it and refuses truncation."""

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return fields and files. Raises if the body is too large, too slow or truncated, and leaves no file then."""
        request = (parser_context or {})["request"]._request
        if bodies.is_chunked(request):
            raise LengthRequired("Send the upload with a Content-Length.")
        declared = bodies.declared_length(request)
        handler = _HashingHandler(settings.CONFIG.max_upload_bytes)
        request.upload_handlers = [handler]
        watched = _CountingStream(stream)
        try:
            with bodies.waiting_for_client(request):
                parsed = super().parse(watched, media_type, parser_context)  # type: ignore[arg-type]  # reads like a file
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
            for file in parsed.files.values():
                file.close()  # type: ignore[union-attr]  # each field has one file
            raise InvalidInput("The upload ended before its last part was complete. Send it again.", code="truncated")
        return parsed
