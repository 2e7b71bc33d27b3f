"""The responses of operations: errors and their body, descriptions of successes, and bodies with a secret."""

from __future__ import annotations

from functools import cache
from typing import Any

from rest_framework import serializers

from byteor_cloud import errors
from byteor_cloud.api.operations import ID
from byteor_cloud.api.problems import MethodNotAllowed
from byteor_cloud.api.view_sets import ResourceViewSet

PROBLEM = {
    "type": "object",
    "description": "An error in the format of RFC 9457. Programs should rely on `type`, because the texts may change.",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "A stable URN that identifies the kind of error."},
        "title": {"type": "string", "description": "The kind of error in words."},
        "status": {"type": "integer", "description": "The status code of the response."},
        "detail": {"type": "string", "description": "What went wrong with this request."},
        "instance": {
            "type": "string",
            "description": "The path of the request, or `/` if the server could not read the request.",
        },
        "request_id": {
            "type": ["string", "null"],
            "description": "The id of the request, also in `X-Request-ID`. Quote it when you ask for help. Null if the "
            "request failed before it got an id.",
        },
        "limit": {"type": "integer", "description": "In `quota.*` errors: the most that the organization may use."},
        "used": {"type": "integer", "description": "In `quota.*` errors: how much the organization uses now."},
        "error": {
            "type": "string",
            "description": "In errors of `/auth/device/token`: a code of RFC 8628 or RFC 6749 if no token was issued.",
        },
        "replay_id": {
            "type": "string",
            "format": "uuid",
            "description": "In `rollback.proof_*` errors: the id of a replay that must prove the rollback.",
        },
        "more_errors": {
            "type": "integer",
            "description": "The number of invalid fields and parameters that `errors` leaves out. Absent if 0.",
        },
        "errors": {
            "type": "array",
            "description": "The invalid fields and parameters, at most 100.",
            "items": {
                "type": "object",
                "required": ["code", "detail"],
                "description": "One invalid field (`pointer`) or parameter (`parameter`).",
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "A JSON Pointer into the request's body or, if the plan of a draft does not "
                        "compile, into the draft.",
                    },
                    "parameter": {"type": "string", "description": "The name of a query parameter or of a header."},
                    "code": {"type": "string", "description": "A stable code for the kind of error."},
                    "detail": {"type": "string", "description": "What is wrong with the field or parameter."},
                },
                "oneOf": [{"required": ["pointer"]}, {"required": ["parameter"]}],
            },
        },
    },
}
ERRORS: dict[str, tuple[type[errors.DomainError], str]] = {
    "400": (
        errors.InvalidInput,
        "The body is malformed or truncated; a field, parameter or header is invalid; or the computation needs too "
        "much time or memory.",
    ),
    "401": (
        errors.Unauthenticated,
        "The credential is missing, malformed, unknown, used up, expired or revoked, or its owner (a person, project, "
        "environment or agent) is deactivated or deleted.",
    ),
    "403": (
        errors.Forbidden,
        "The credential is valid, but does not permit the operation, for example because of its role or family.",
    ),
    "404": (errors.NotFound, "There is no such resource, or the caller has no access to it."),
    "405": (MethodNotAllowed, "The path does not support the method; `Allow` lists those that it supports."),
    "408": (errors.RequestTimeout, "The body arrived too slowly."),
    "409": (
        errors.Conflict,
        "The current state of a resource does not permit the operation, a name is taken, a quota would be exceeded, or "
        "the `Idempotency-Key` of a `POST` is in use or was used with another request.",
    ),
    "411": (errors.LengthRequired, "The upload has no `Content-Length`."),
    "412": (
        errors.PreconditionFailed,
        "The resource is not in the state that `If-Match` or `expected_revision` names.",
    ),
    "413": (errors.PayloadTooLarge, "The body is too large."),
    "414": (errors.UriTooLong, "The request line, with the path and the query, is longer than 8,190 bytes."),
    "415": (errors.UnsupportedMediaType, "The body has a media type that the operation does not accept."),
    "422": (
        errors.Unprocessable,
        "The request is valid, but the plan of a draft does not compile, or no version has the artifact's spec hash.",
    ),
    "429": (errors.TooManyRequests, "A rate limit is exceeded. Wait for `Retry-After` seconds."),
    "431": (errors.HeadersTooLarge, "A header is longer than about 8,190 bytes, or there are more than 100 headers."),
    "503": (
        errors.Unavailable,
        "The service is temporarily unavailable, or the request took too long. Try again after `Retry-After` seconds.",
    ),
    "507": (
        errors.InsufficientStorage,
        "The server's disk is full, almost full or not writable; nothing was stored. Try again after `Retry-After` "
        "seconds.",
    ),
}
SUCCESSES = {
    "200": "Success.",
    "201": "Created.",
    "202": "Accepted. The work continues in the background.",
    "204": "Success, without a body.",
    "302": "A redirect.",
}
# Errors that operations need not declare: those that any request can cause, and those of requests with a body.
_ALWAYS = (errors.InvalidInput, MethodNotAllowed, errors.UriTooLong, errors.HeadersTooLarge)
_WITH_A_BODY = (errors.RequestTimeout, errors.PayloadTooLarge, errors.UnsupportedMediaType)
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


def error_codes(view: object, action: str, method: str) -> list[str]:
    """Return the status codes of the errors that the document lists, apart from the declared responses."""
    found = set(_ALWAYS)
    if isinstance(view, ResourceViewSet):
        found |= view.errors_of(action)
        if accepts_idempotency_key(view, action, method):
            found.add(errors.Conflict)  # the key was used with another request, or its first request is still running
    elif not getattr(view, "is_probe", False):
        found.add(errors.TooManyRequests)  # too many requests without a valid credential
    if method in BODY_METHODS:
        found.update(_WITH_A_BODY)
    return sorted({str(error.status) for error in found})


def accepts_idempotency_key(view: ResourceViewSet, action: str, method: str) -> bool:
    """Return whether the operation accepts an ``Idempotency-Key``."""
    return method == "POST" and view.operations[action].takes_idempotency_key


def problem_response(code: str) -> dict[str, Any]:
    """Return the OpenAPI response object of an error."""
    kind, description = ERRORS[code]
    example = errors.problem(
        code=kind.code,
        title=kind.title,
        status=kind.status,
        detail=description,
        instance="/api/v1/me",
        request_id=ID,
    )
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    return {"description": description, "content": {errors.CONTENT_TYPE: content}}


@cache
def with_secret(shape: type[Any]) -> type[Any]:
    """Derive a serializer that also has the ``token``, for the only response that contains the secret."""
    token = serializers.CharField(help_text="The secret. It is shown only in this response.")
    meta = type("Meta", (shape.Meta,), {"fields": [*shape.Meta.fields, "token"]})
    name = shape.__name__.replace("Serializer", "WithSecretSerializer")
    return type(
        name, (shape,), {"token": token, "Meta": meta, "__doc__": "This is the only response that contains the secret."}
    )
