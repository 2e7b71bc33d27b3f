"""What a service may refuse with. No Django, no HTTP: ``api.problems`` turns these into problem+json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

MAX_FIELD_ERRORS = 100
"""A refusal names at most this many invalid fields, and says how many more there are."""
MAX_POINTER = 1_000
MAX_DETAIL = 1_000


def child_pointer(pointer: str, key: object) -> str:
    """Give the JSON Pointer of a member of what ``pointer`` points to, or ``pointer`` where that would be too long."""
    text = str(key)
    if len(pointer) + len(text) >= MAX_POINTER:
        return pointer
    return f"{pointer}/{text.replace('~', '~0').replace('/', '~1')}"


def shorten(text: str, length: int = MAX_DETAIL) -> str:
    """Cut a text that may quote what a client sent."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field; ``pointer`` is a JSON Pointer into the request body."""

    pointer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class ParameterError:
    """One wrong parameter of the query, or one wrong header."""

    parameter: str
    code: str
    detail: str


class DomainError(Exception):
    """A refusal with a stable ``code``; ``detail`` is for people and may change."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Refused"
    status: ClassVar[int] = 400
    retry_span_s: ClassVar[int] = 3
    """``Retry-After`` names a random second from ``retry_after`` to this much later: callers do not return together."""

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
        # Whoever sends 300,000 wrong fields is told of the first ones.
        self.errors = tuple(errors[:MAX_FIELD_ERRORS])
        self.more_errors = len(errors) - len(self.errors)
        self.retry_after = retry_after


class InvalidInput(DomainError):
    """The request's content is wrong."""

    code = "invalid"
    title = "Invalid input"

    @classmethod
    def at(cls, pointer: str, detail: str, *, code: str = "invalid") -> InvalidInput:
        """One invalid field."""
        return cls(detail, errors=[FieldError(pointer, code, detail)])

    @classmethod
    def at_parameter(cls, parameter: str, detail: str, *, code: str = "invalid") -> InvalidInput:
        """Say that one parameter or header is wrong."""
        return cls(detail, errors=[ParameterError(parameter, code, detail)])


class Unauthenticated(DomainError):
    """No usable credential."""

    code = "unauthenticated"
    title = "Authentication required"
    status = 401


class Forbidden(DomainError):
    """The right tenant, but not allowed."""

    code = "forbidden"
    title = "Forbidden"
    status = 403


class NotFound(DomainError):
    """Unknown, or another tenant's: the two are not told apart."""

    code = "not_found"
    title = "Not found"
    status = 404


class Conflict(DomainError):
    """The present state does not allow it."""

    code = "conflict"
    title = "Conflict"
    status = 409


class IllegalTransition(Conflict):
    """The state machine has no such step from the current status."""

    code = "illegal_transition"
    title = "Not possible in this status"


class PreconditionFailed(DomainError):
    """``If-Match`` names another revision than the current one."""

    code = "precondition_failed"
    title = "Precondition failed"
    status = 412


class RequestTimeout(DomainError):
    """The body did not arrive in time."""

    code = "request_timeout"
    title = "Request timeout"
    status = 408


class LengthRequired(DomainError):
    """The body must say its length."""

    code = "length_required"
    title = "Length required"
    status = 411


class PayloadTooLarge(DomainError):
    """The body is over its cap."""

    code = "payload_too_large"
    title = "Payload too large"
    status = 413


class UriTooLong(DomainError):
    """The request line is longer than the server reads."""

    code = "uri_too_long"
    title = "URI too long"
    status = 414


class UnsupportedMediaType(DomainError):
    """The body is in a format that is not read here."""

    code = "unsupported_media_type"
    title = "Unsupported media type"
    status = 415


class Unprocessable(DomainError):
    """Well-formed, but it cannot be done with this content."""

    code = "unprocessable"
    title = "Unprocessable content"
    status = 422


class HeadersTooLarge(DomainError):
    """A header is longer than the server reads, or there are too many of them."""

    code = "headers_too_large"
    title = "Request header fields too large"
    status = 431


class TooManyRequests(DomainError):
    """Over the rate limit; ``retry_after`` says when to come back."""

    code = "too_many_requests"
    title = "Too many requests"
    status = 429
    retry_span_s = 30


class Unavailable(DomainError):
    """Something that serving needs is not there just now."""

    code = "unavailable"
    title = "Service unavailable"
    status = 503
    retry_span_s = 10


class InsufficientStorage(DomainError):
    """No space is left for what was sent; it may be sent again when there is."""

    code = "insufficient_storage"
    title = "Insufficient storage"
    status = 507
    retry_span_s = 30
