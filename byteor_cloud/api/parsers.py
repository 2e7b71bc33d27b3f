"""Strict JSON: what PostgreSQL could not store or two parsers would read differently is refused at the door."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import UnreadablePostError
from django.utils.http import parse_header_parameters
from rest_framework.parsers import BaseParser, MultiPartParser

from byteor_cloud.api import bodies
from byteor_cloud.errors import InvalidInput, LengthRequired, PayloadTooLarge, below

MAX_DEPTH = 200


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:30]} is out of range")
    return number


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _check(value: Any) -> None:
    """Refuse NUL and lone surrogates in any string, and nesting over MAX_DEPTH; iterative, whatever the depth."""
    waiting: list[tuple[Any, str, int]] = [(value, "", 0)]
    while waiting:
        item, pointer, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidInput.at(pointer[:200], f"Nested deeper than {MAX_DEPTH}.", code="too_deep")
        if isinstance(item, str):
            if "\0" in item or (not item.isascii() and any("\ud800" <= c <= "\udfff" for c in item)):
                raise InvalidInput.at(pointer, "Holds a NUL or a lone surrogate.", code="character")
        elif isinstance(item, dict):
            for key, child in item.items():
                waiting.append((key, pointer, depth))
                waiting.append((child, below(pointer, key), depth + 1))
        elif isinstance(item, list):
            waiting.extend((child, f"{pointer}/{i}", depth + 1) for i, child in enumerate(item))


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON text. Raises InvalidInput."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise InvalidInput("The body is not UTF-8.", code="malformed_json") from None
    except RecursionError:
        raise InvalidInput("The body is nested too deeply.", code="malformed_json") from None
    except ValueError as error:
        raise InvalidInput(f"The body is not valid JSON: {error}", code="malformed_json") from None
    _check(value)
    return value


class StrictJSONParser(BaseParser):
    """UTF-8 JSON without duplicate keys, NaN, infinities, NUL characters or lone surrogates."""

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
        return parse_json(bodies.read(context["request"]._request, cap))


class _HashingHandler(TemporaryFileUploadHandler):
    """Hashes a file while it is streamed to a temporary one; never whole in memory."""

    def __init__(self, cap: int) -> None:
        super().__init__()
        self._cap, self._received, self._digest = cap, 0, hashlib.sha256()

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """A file part begins."""
        os.makedirs(settings.FILE_UPLOAD_TEMP_DIR, mode=0o700, exist_ok=True)
        self._received, self._digest = 0, hashlib.sha256()
        super().new_file(*args, **kwargs)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """A piece of it arrives. Raises PayloadTooLarge."""
        self._received += len(raw_data)
        if self._received > self._cap:
            raise PayloadTooLarge(f"The file is over {self._cap} bytes.")
        self._digest.update(raw_data)
        super().receive_data_chunk(raw_data, start)

    def file_complete(self, file_size: int) -> UploadedFile[Any] | None:
        """The file with its ``content_hash``."""
        file = super().file_complete(file_size)
        file.content_hash = f"sha256:{self._digest.hexdigest()}"  # type: ignore[union-attr]  # read by the upload's view
        return file


class _Watched:
    """A stream that remembers how much was read of it, and its end."""

    _TAIL = 512

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.count, self.tail = stream, 0, b""

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._stream.read(size)
        self.count += len(data)
        self.tail = (self.tail + data[-self._TAIL :])[-self._TAIL :]
        return data


class UploadParser(MultiPartParser):
    """Multipart with one file, streamed and hashed; an upload that was cut off is refused."""

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return fields and files. Raises for a body that is too large, too slow or cut off; then no file is left."""
        request = (parser_context or {})["request"]._request
        if bodies.is_chunked(request):
            raise LengthRequired("Send the upload with a Content-Length.")
        declared = bodies.declared_length(request)
        handler = _HashingHandler(settings.CONFIG.max_upload_bytes)
        request.upload_handlers = [handler]
        watched = _Watched(stream)
        try:
            with bodies.waiting_for_client(request):
                parsed = super().parse(watched, media_type, parser_context)  # type: ignore[arg-type]  # reads like a file
        except (UnreadablePostError, OSError) as error:
            handler.upload_interrupted()
            raise bodies.interrupted(error) from None
        except Exception:
            handler.upload_interrupted()
            raise
        boundary = (parse_header_parameters(media_type or "")[1].get("boundary") or "").encode()
        if watched.count != declared or not watched.tail.rstrip().endswith(b"--" + boundary + b"--"):
            for file in parsed.files.values():
                file.close()  # type: ignore[union-attr]  # one file a field
            raise InvalidInput("The upload was cut off.", code="truncated")
        return parsed
