"""The errors that become problem responses (RFC 9457), and their body. Does not import Django or HTTP code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

CONTENT_TYPE = "application/problem+json"
URN = "urn:byteor:problem:"
MAX_FIELD_ERRORS = 100
"""The maximum number of invalid fields and parameters in a problem. ``more_errors`` counts further ones, if found."""
MAX_POINTER = 1_000
MAX_DETAIL = 1_000


def child_pointer(pointer: str, key: object) -> str:
    """Return the JSON Pointer to member ``key`` of the value at ``pointer``, or ``pointer`` if that is too long."""
    text = str(key)
    if len(pointer) + len(text) >= MAX_POINTER:
        return pointer
    return f"{pointer}/{text.replace('~', '~0').replace('/', '~1')}"


def shorten(text: str, length: int = MAX_DETAIL) -> str:
    """Shorten a message that may quote input, so that an error cannot echo megabytes."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def problem(
    *, code: str, title: str, status: int, detail: str, instance: str, request_id: str | None, **members: Any
) -> dict[str, Any]:
    """Return the body of a problem.

    ``code`` names the kind of error. ``instance`` is the path of the request, or ``/`` if the path may be unknown.
    """
    return {
        "type": URN + code,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "request_id": request_id,
        **members,
    }


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field; ``pointer`` is a JSON Pointer into the request body."""

    pointer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class ParameterError:
    """One invalid query parameter or header."""

    parameter: str
    code: str
    detail: str


class DomainError(Exception):
    """An error with a stable ``code`` for programs, and a ``detail`` for people. The text of ``detail`` may change."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Refused"
    status: ClassVar[int] = 400
    retry_span_s: ClassVar[int] = 3
    """The maximum of the random seconds added to ``Retry-After``, so that callers do not all retry at the same time."""
    members: Mapping[str, int | str] = {}
    """Additional members of the problem, which ``api.schema.responses.PROBLEM`` describes."""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[FieldError | ParameterError] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = shorten(detail)
        self.reason = code or self.code
        # A body may have 300,000 invalid fields; only the first ones are reported.
        self.errors = tuple(errors[:MAX_FIELD_ERRORS])
        self.more_errors = len(errors) - len(self.errors)
        self.retry_after = retry_after


class InvalidInput(DomainError):
    """The request is invalid."""

    code = "invalid"
    title = "Invalid input"

    @classmethod
    def at(cls, pointer: str, detail: str, *, code: str = "invalid") -> InvalidInput:
        """Return an error for one invalid field."""
        return cls(detail, errors=[FieldError(pointer, code, detail)])

    @classmethod
    def at_parameter(cls, parameter: str, detail: str, *, code: str = "invalid") -> InvalidInput:
        """Return an error for one invalid parameter or header."""
        return cls(detail, errors=[ParameterError(parameter, code, detail)])


class Unauthenticated(DomainError):
    """The request has no valid credential."""

    code = "unauthenticated"
    title = "Authentication required"
    status = 401


class Forbidden(DomainError):
    """The caller is not permitted to perform the operation."""

    code = "forbidden"
    title = "Forbidden"
    status = 403


class NotFound(DomainError):
    """The resource does not exist, or the caller has no access to it. A caller without access cannot tell which."""

    code = "not_found"
    title = "Not found"
    status = 404


class NotStored(NotFound):
    """The blob store reported that it does not have the blob. If the store does not respond, Unavailable is raised."""


class Conflict(DomainError):
    """The operation conflicts with the current state of a resource."""

    code = "conflict"
    title = "Conflict"
    status = 409


class IllegalTransition(Conflict):
    """The resource's current status does not permit the requested transition."""

    code = "illegal_transition"
    title = "Not possible in this status"


class QuotaExceeded(Conflict):
    """The organization would exceed one of its quotas. The code is ``quota.`` followed by the quota's name."""

    code = "quota"
    title = "Quota exceeded"

    def __init__(self, detail: str, *, quota: str, limit: int, used: int) -> None:
        super().__init__(detail, code=f"quota.{quota}")
        self.members = {"limit": limit, "used": used}


class UnprovenRollback(Conflict):
    """A replay that must prove a rollback has not succeeded. The code is ``rollback.`` followed by ``state``."""

    code = "rollback"
    title = "Rollback not proven"

    def __init__(self, detail: str, *, state: str, replay_id: str, retry_after: int | None = None) -> None:
        super().__init__(detail, code=f"rollback.{state}", retry_after=retry_after)
        self.members = {"replay_id": replay_id}


class DeviceSignInError(DomainError):
    """No token was issued to a machine. ``error`` is the code of RFC 6749 or RFC 8628."""

    code = "invalid_request"
    title = "Not signed in"

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail, code=error)
        self.members = {"error": error}


class PreconditionFailed(DomainError):
    """The resource is not in the state that ``If-Match`` or the expected revision names."""

    code = "precondition_failed"
    title = "Precondition failed"
    status = 412


class RequestTimeout(DomainError):
    """The request's body did not arrive in time."""

    code = "request_timeout"
    title = "Request timeout"
    status = 408


class LengthRequired(DomainError):
    """The request needs a ``Content-Length`` header."""

    code = "length_required"
    title = "Length required"
    status = 411


class PayloadTooLarge(DomainError):
    """The request's body, or a part of it, is larger than allowed, or it contains too many files."""

    code = "payload_too_large"
    title = "Payload too large"
    status = 413


class UriTooLong(DomainError):
    """The request line is longer than the server accepts."""

    code = "uri_too_long"
    title = "URI too long"
    status = 414


class UnsupportedMediaType(DomainError):
    """The request's body has a media type that the operation does not accept."""

    code = "unsupported_media_type"
    title = "Unsupported media type"
    status = 415


class Unprocessable(DomainError):
    """The request is well-formed, but what it refers to cannot be processed, such as a draft that does not compile."""

    code = "unprocessable"
    title = "Unprocessable content"
    status = 422


class HeadersTooLarge(DomainError):
    """The request's headers are too long or too many."""

    code = "headers_too_large"
    title = "Request header fields too large"
    status = 431


class TooManyRequests(DomainError):
    """A rate limit is exceeded. The caller may retry after ``retry_after`` seconds."""

    code = "too_many_requests"
    title = "Too many requests"
    status = 429
    retry_span_s = 30


class Unavailable(DomainError):
    """The service cannot handle the request at the moment."""

    code = "unavailable"
    title = "Service unavailable"
    status = 503
    retry_span_s = 10


def unresponsive_database_error() -> Unavailable:
    """Return the error for a request that gave up waiting for the database."""
    return Unavailable("The database is not responding. Try again later.", retry_after=5)


class InsufficientStorage(DomainError):
    """The server cannot store a file, because a disk is (almost) full or not writable. The client may retry later."""

    code = "insufficient_storage"
    title = "Insufficient storage"
    status = 507
    retry_span_s = 30
