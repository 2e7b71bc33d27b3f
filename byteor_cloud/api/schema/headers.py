"""The request and response headers of the API, and the selection that each operation documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from byteor_cloud.api.parameters import IDEMPOTENCY_KEY
from byteor_cloud.api.schema.responses import BODY_METHODS, accepts_idempotency_key
from byteor_cloud.api.view_sets import ResourceViewSet
from byteor_cloud.errors import PreconditionFailed


def _header(name: str, description: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": {"type": "string"}, "description": description}


HEADERS = {
    "Idempotency-Key": IDEMPOTENCY_KEY.document("Idempotency-Key", location="header"),
    "If-Match": _header(
        "If-Match", "The ETag that you last read. If the resource was edited since, the request is refused with 412."
    ),
    "If-None-Match": _header(
        "If-None-Match", "The ETag that you last read. If it is still current, the response is 304 without a body."
    ),
}
_REQUEST_ID = "^[A-Za-z0-9._-]{8,64}$"
RESPONSE_HEADERS: dict[str, dict[str, Any]] = {
    name: {"description": description, "schema": schema}
    for name, description, schema in (
        (
            "X-Request-ID",
            "The id of the request, which the server's log lines also contain.",
            {"type": "string", "pattern": _REQUEST_ID},
        ),
        (
            "X-RateLimit-Limit",
            "The number of requests that the rate limit permits per minute. For an enrollment token, only refused "
            "requests count.",
            {"type": "integer", "minimum": 1},
        ),
        ("X-RateLimit-Remaining", "The number of requests left in this minute.", {"type": "integer", "minimum": 0}),
        ("X-RateLimit-Reset", "When this minute ends, as Unix time in seconds.", {"type": "integer", "minimum": 0}),
        ("Retry-After", "The number of seconds to wait before a retry.", {"type": "integer", "minimum": 1}),
        ("WWW-Authenticate", "The authentication scheme to use.", {"type": "string", "const": "Bearer"}),
        ("Allow", "The methods that the path supports.", {"type": "string"}),
        (
            "ETag",
            "Identifies the current state of the resource. Send it as `If-None-Match` or `If-Match`.",
            {"type": "string", "pattern": '^".*"$'},
        ),
        ("Location", "The path of the created resource, if the resource has a path of its own.", {"type": "string"}),
        (
            "Idempotent-Replayed",
            "Present if this is the stored response to an earlier request with the same `Idempotency-Key`.",
            {"type": "string", "const": "true"},
        ),
    )
}
# Headers that a response with this status must have.
ALWAYS = {"401": ["WWW-Authenticate"], "405": ["Allow"], "429": ["Retry-After"]}


def request_headers(view: object, action: str, method: str) -> list[str]:
    """Return the names of the headers that the operation accepts."""
    if not isinstance(view, ResourceViewSet):
        return []
    found = []
    if accepts_idempotency_key(view, action, method):
        found.append("Idempotency-Key")
    if PreconditionFailed in view.errors_of(action):
        found.append("If-Match")
    if method == "GET" and not view.is_list(action):
        found.append("If-None-Match")
    return found


def response_headers(view: object, action: str, method: str, code: str) -> Iterator[str]:
    """Yield the names of the headers of the response with the status ``code``."""
    yield "X-Request-ID"
    if not isinstance(view, ResourceViewSet):
        return
    if code not in {"401", "414", "431"}:  # these responses are usually sent before the caller is known
        yield from ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    if code in {"409", "503", "507"}:
        yield "Retry-After"
    if code in {"200", "304"} and method == "GET" and not view.is_list(action):
        yield "ETag"
    if code[0] == "2" and method in BODY_METHODS:
        yield "ETag"
    if code in {"201", "202"}:
        yield "Location"
    if code[0] == "2" and accepts_idempotency_key(view, action, method):
        yield "Idempotent-Replayed"
