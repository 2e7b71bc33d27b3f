"""Compression of HTML pages. This middleware leaves other responses, such as those of the API, as they are."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.middleware.gzip import GZipMiddleware, re_accepts_gzip


def accepts_gzip(request: HttpRequest) -> bool:
    """Return whether the ``Accept-Encoding`` header names gzip."""
    return re_accepts_gzip.search(request.headers.get("Accept-Encoding", "")) is not None


def compress_html(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Compress HTML pages of at least 200 bytes for clients that accept gzip, if this makes the page shorter.

    This is the first middleware, so that compressing occupies no database connection and no request slot. Django adds
    a random number of bytes (at most 99), because the length of a compressed page could otherwise reveal a secret in it
    (BREACH).
    """
    compress = GZipMiddleware(get_response).process_response

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if response.streaming or not response.get("Content-Type", "").startswith("text/html"):
            return response
        compress(request, response)
        return response

    return middleware
