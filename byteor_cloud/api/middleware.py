"""Every response carries the request's id."""

from __future__ import annotations

import re
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from byteor_cloud.ids import uuid7

_SANE = re.compile(r"[A-Za-z0-9._\-]{8,64}")


def request_id(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Take ``X-Request-ID`` from the request when it is a sane value, else make one; echo it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        # Written back, so that the log lines, audit events and problems name the same id.
        chosen = request.META["HTTP_X_REQUEST_ID"] = given if _SANE.fullmatch(given) else str(uuid7())
        response = get_response(request)
        response["X-Request-ID"] = chosen
        return response

    return middleware
