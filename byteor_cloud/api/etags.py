"""Entity tags: the digest of a body, and the ``If-Match`` and ``If-None-Match`` headers."""

from __future__ import annotations

import hashlib
from typing import Any

from django.http import HttpResponse

from byteor_cloud.api.rendering import json_pieces


def body_digest(data: Any) -> str:
    """Return a digest of a response's data for its ETag. Keys are sorted, because the database changes their order."""
    digest = hashlib.sha256()
    for piece in json_pieces(data, sort_keys=True):
        digest.update(piece.encode())
    return digest.hexdigest()[:32]


def read_tags(header: str) -> set[str]:
    """Return the entity tags in an ``If-Match`` or ``If-None-Match`` header."""
    return {tag.strip() for tag in header.split(",")}


def matches_tag(header: str, etag: str) -> bool:
    """Return whether ``If-None-Match`` contains the ETag or ``*``. The comparison is weak (RFC 9110, 13.1.2)."""
    if header == etag:
        return True
    return not {tag.removeprefix("W/") for tag in read_tags(header)}.isdisjoint({etag.removeprefix("W/"), "*"})


def not_modified(response: Any) -> HttpResponse:
    """Return the 304 response that replaces a response whose ETag the caller already has."""
    unchanged = HttpResponse(status=304, headers=dict(response.items()))
    for name in ("Content-Type", "Content-Length", "Content-Disposition"):
        unchanged.headers.pop(name, None)
    # Closing this response also closes the file of the original one, which is not sent.
    unchanged._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]  # a private attribute
    return unchanged
