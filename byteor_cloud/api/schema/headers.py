"""The headers of requests and answers that the kernel reads and writes, and which of them an operation has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from byteor_cloud.api.declared import DeclaredView
from byteor_cloud.api.parameters import IDEMPOTENCY_KEY
from byteor_cloud.api.schema.responses import BODY_METHODS, is_repeatable
from byteor_cloud.errors import PreconditionFailed


def _header(name: str, description: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": {"type": "string"}, "description": description}


HEADERS = {
    "Idempotency-Key": IDEMPOTENCY_KEY.document("Idempotency-Key", place="header"),
    "If-Match": _header("If-Match", "The ETag that you read; refused with 412 when it was changed since."),
    "If-None-Match": _header("If-None-Match", "The ETag that you have; 304 when it is still so."),
}
_REQUEST_ID = "^[A-Za-z0-9._-]{8,64}$"
ANSWER_HEADERS: dict[str, dict[str, Any]] = {
    name: {"description": description, "schema": schema}
    for name, description, schema in (
        ("X-Request-ID", "The id that the logs know the request by.", {"type": "string", "pattern": _REQUEST_ID}),
        ("X-RateLimit-Limit", "Requests a minute.", {"type": "integer", "minimum": 1}),
        ("X-RateLimit-Remaining", "How many of them are left.", {"type": "integer", "minimum": 0}),
        ("X-RateLimit-Reset", "When the minute ends, in Unix seconds.", {"type": "integer", "minimum": 0}),
        ("Retry-After", "Seconds to wait.", {"type": "integer", "minimum": 1}),
        ("WWW-Authenticate", "The scheme of the credential.", {"type": "string", "const": "Bearer"}),
        ("Allow", "The methods of the path.", {"type": "string"}),
        ("ETag", "For `If-None-Match`, and for `If-Match` where it is taken.", {"type": "string", "pattern": '^".*"$'}),
        ("Location", "The path of what was made.", {"type": "string"}),
        ("Idempotent-Replayed", "The answer of an earlier request.", {"type": "string", "const": "true"}),
    )
}
# Headers without which an answer of that status is wrong.
ALWAYS = {"401": ["WWW-Authenticate"], "405": ["Allow"], "429": ["Retry-After"]}


def request_headers(view: object, action: str, method: str) -> list[str]:
    """Give the names of the headers that the operation takes."""
    if not isinstance(view, DeclaredView):
        return []
    found = []
    if is_repeatable(view, method):
        found.append("Idempotency-Key")
    if PreconditionFailed in view.errors_of(action):
        found.append("If-Match")
    if method == "GET" and not view.is_list(action):
        found.append("If-None-Match")
    return found


def answer_headers(view: object, action: str, method: str, code: str) -> Iterator[str]:
    """Give the names of the headers of the answer with the status ``code``."""
    yield "X-Request-ID"
    if not isinstance(view, DeclaredView):
        return
    if code not in {"401", "414", "431"}:  # refused before the caller is known
        yield from ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    if code in {"409", "503", "507"}:
        yield "Retry-After"
    if code in {"200", "304"} and method == "GET" and not view.is_list(action):
        yield "ETag"
    if code[0] == "2" and method in BODY_METHODS:
        yield "ETag"
    if code in {"201", "202"}:
        yield "Location"
    if code[0] == "2" and is_repeatable(view, method):
        yield "Idempotent-Replayed"
