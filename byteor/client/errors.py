"""The exceptions of the client."""

from __future__ import annotations

from typing import Any


class ByteOrError(Exception):
    """The base class of the exceptions in this module."""


class ConnectionFailed(ByteOrError):
    """The server could not be reached, or the connection failed or timed out before the whole response arrived."""


class UnexpectedResponse(ByteOrError):
    """The response is not from this API, such as a page of a proxy, or does not match the API's document."""


class ApiError(ByteOrError):
    """The server returned an error (RFC 9457).

    ``status`` is the HTTP status, ``type`` a stable URN, ``code`` its last part, ``detail`` the explanation, ``errors``
    the invalid fields and parameters, ``request_id`` the id to quote when you ask for help, ``retry_after`` the seconds
    after which a retry may succeed, and ``problem`` the whole body. ``request_id`` and ``retry_after`` can be None.
    If the body is not a JSON object, for example because a proxy sent it, ``type`` is ``about:blank`` and ``problem``
    contains only a ``detail``.
    """

    def __init__(self, status: int, problem: dict[str, Any], *, retry_after: float | None = None) -> None:
        self.status = status
        self.problem = problem
        self.type = str(problem.get("type", "about:blank"))
        self.code = self.type.rpartition(":")[2]
        self.detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        errors = problem.get("errors")  # a proxy in front of the server may send JSON of its own
        self.errors = [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
        self.request_id: str | None = problem.get("request_id")
        self.retry_after = retry_after
        super().__init__(self.detail)

    def __str__(self) -> str:
        places = [f"{each.get('pointer') or each.get('parameter')}: {each.get('detail')}" for each in self.errors]
        request = f" (request {self.request_id})" if self.request_id else ""
        is_repeated = places and all(str(each.get("detail")) in self.detail for each in self.errors)
        return "; ".join(places if is_repeated else [self.detail, *places]) + request


class InvalidRequest(ApiError):
    """400 or 422: the request is invalid or cannot be processed, for example because a plan does not compile."""


class Unauthorized(ApiError):
    """401: the credential is missing, invalid, expired or revoked."""


class Forbidden(ApiError):
    """403: the caller may not send the request, for example because of the role or the kind of credential."""


class NotFound(ApiError):
    """404: there is no such resource, or the credential has no access to it."""


class Conflict(ApiError):
    """409: the current state does not allow the request."""


class EditConflict(ApiError):
    """412: the resource was edited since the ETag in ``if_match`` or the expected revision was read."""


class TooManyRequests(ApiError):
    """429: a rate limit is reached."""


class Unavailable(ApiError):
    """502, 503 or 504: the service, or something that it needs, is not available. Try again later."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 412: EditConflict,
    422: InvalidRequest, 429: TooManyRequests, 502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip
