"""The error responses of an operation, and the one body that all of them have."""

from __future__ import annotations

from functools import cache
from typing import Any

from rest_framework import serializers

from byteor_cloud import errors
from byteor_cloud.api.declared import DeclaredView
from byteor_cloud.api.problems import CONTENT_TYPE, URN, MethodNotAllowed
from byteor_cloud.api.schema.examples import ID

PROBLEM = {
    "type": "object",
    "description": "RFC 9457. Branch on `type`; the texts may change.",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "A stable URN, one for each code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": ["string", "null"]},
        "more_errors": {"type": "integer", "description": "How many invalid fields more than those in `errors`."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["code", "detail"],
                "description": "Where it is: `pointer` for the body, `parameter` for the query and the headers.",
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON Pointer into the request's body."},
                    "parameter": {"type": "string", "description": "The name of a query parameter or of a header."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
                "oneOf": [{"required": ["pointer"]}, {"required": ["parameter"]}],
            },
        },
    },
}
ERRORS: dict[str, tuple[type[errors.DomainError], str]] = {
    "400": (errors.InvalidInput, "Malformed JSON, an invalid field, or an invalid parameter."),
    "401": (errors.Unauthenticated, "No, bad, spent, expired or revoked credential."),
    "403": (errors.Forbidden, "The role is too low, or the wrong family of credential."),
    "404": (errors.NotFound, "Unknown, or another tenant's."),
    "405": (MethodNotAllowed, "The path has no such method; `Allow` names those that it has."),
    "408": (errors.RequestTimeout, "The body arrives too slowly."),
    "409": (errors.Conflict, "The present state does not allow it."),
    "411": (errors.LengthRequired, "The upload does not say its length."),
    "412": (errors.PreconditionFailed, "`If-Match` names another revision."),
    "413": (errors.PayloadTooLarge, "The body is over its cap."),
    "414": (errors.UriTooLong, "The path and its query are over 8,190 bytes."),
    "415": (errors.UnsupportedMediaType, "The body is in another format."),
    "422": (errors.Unprocessable, "Well-formed, but it cannot be done with this content."),
    "429": (errors.TooManyRequests, "Over the rate limit; see `Retry-After`."),
    "431": (errors.HeadersTooLarge, "A header is over 8,190 bytes, or there are over 100."),
    "503": (errors.Unavailable, "Something that serving needs is not there just now; see `Retry-After`."),
    "507": (errors.InsufficientStorage, "No space is left for it; nothing was stored. See `Retry-After`."),
}
# The server refuses these by itself: whatever the view is, and where a body is sent.
_ALWAYS = (errors.InvalidInput, MethodNotAllowed, errors.UriTooLong, errors.HeadersTooLarge)
_WITH_A_BODY = (errors.RequestTimeout, errors.PayloadTooLarge, errors.UnsupportedMediaType)
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


def error_codes(view: object, action: str, method: str) -> list[str]:
    """Give the statuses of the errors that the operation may answer with."""
    found = set(_ALWAYS)
    if isinstance(view, DeclaredView):
        found |= view.errors_of(action)
        if method in BODY_METHODS:
            found.update(_WITH_A_BODY)
        if is_repeatable(view, method):
            found.add(errors.Conflict)  # the key was used for another body, or its first use goes on
    return sorted({str(error.status) for error in found})


def is_repeatable(view: DeclaredView, method: str) -> bool:
    """Whether the operation takes an ``Idempotency-Key``."""
    return method == "POST" and view.takes_idempotency_key


def problem(code: str) -> dict[str, Any]:
    """The response of an error."""
    kind, description = ERRORS[code]
    example = {
        "type": URN + kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": description,
        "instance": "/api/v1/me",
        "request_id": ID,
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    return {"description": description, "content": {CONTENT_TYPE: content}}


@cache
def with_secret(shape: type[Any]) -> type[Any]:
    """``shape`` with the ``token``: the one answer that shows the secret."""
    token = serializers.CharField(help_text="The secret; shown this once.")
    meta = type("Meta", (shape.Meta,), {"fields": [*shape.Meta.fields, "token"]})
    name = shape.__name__.replace("Serializer", "WithSecretSerializer")
    return type(name, (shape,), {"token": token, "Meta": meta, "__doc__": "The only answer that shows the secret."})
