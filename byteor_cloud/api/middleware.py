"""Middleware that sets request ids, and middleware that refuses writes while the disk is almost full."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from byteor_cloud.api import problems
from byteor_cloud.ids import uuid7
from byteor_cloud.storage import space

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{8,64}")


def choose_request_id(meta: dict[str, Any]) -> str:
    """Return the caller's ``X-Request-ID`` if it is valid, otherwise a new id.

    The id is stored in ``meta``, so that log lines, audit events and problems contain the same id.
    """
    given = meta.get("HTTP_X_REQUEST_ID", "")
    chosen: str = given if _REQUEST_ID.fullmatch(given) else str(uuid7())
    meta["HTTP_X_REQUEST_ID"] = chosen
    return chosen


def set_request_id(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Accept a valid ``X-Request-ID`` from the request or generate one, and return it in the response."""

    def middleware(request: HttpRequest) -> HttpResponse:
        chosen = choose_request_id(request.META)
        response = get_response(request)
        response["X-Request-ID"] = chosen
        return response

    return middleware


def refuse_writes_without_space(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse writes while the embedded database's disk is almost full. Serving reads needs the remaining space."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method in _READING or not space.is_low_for_database():
            return get_response(request)
        if _UPLOAD.fullmatch(request.path):
            return problems.respond_or_show_page(request, problems.full_disk_upload_error())
        return problems.respond_or_show_page(request, problems.full_disk_error())

    return middleware


_READING = {"GET", "HEAD", "OPTIONS"}
_UPLOAD = re.compile(r"/api/v1/agents/[^/]+/artifacts")
