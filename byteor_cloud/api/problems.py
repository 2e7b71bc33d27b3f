"""The conversion of errors to an RFC 9457 problem response, or to an HTML page for browsers."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, TooManyFilesSent
from django.db import DatabaseError, IntegrityError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.template.loader import render_to_string
from psycopg import errors as pg
from psycopg_pool import PoolTimeout
from rest_framework import exceptions as drf
from rest_framework.request import Request
from rest_framework.response import Response

from byteor_cloud import errors
from byteor_cloud.database.connections import Unresponsive
from byteor_cloud.storage import space

logger = structlog.get_logger(__name__)


def field_errors(detail: Any, pointer: str = "") -> Iterator[errors.FieldError]:
    """Yield the errors of a serializer, each with the JSON Pointer of its field."""
    if isinstance(detail, Mapping):
        for key, child in detail.items():
            if key == "non_field_errors":
                yield from field_errors(child, pointer)
            else:
                yield from field_errors(child, errors.child_pointer(pointer, key))
    elif isinstance(detail, list):
        for index, child in enumerate(detail):
            nested = isinstance(child, (Mapping, list))
            yield from field_errors(child, f"{pointer}/{index}" if nested else pointer)
    else:
        yield errors.FieldError(pointer, getattr(detail, "code", "invalid"), errors.shorten(str(detail)))


_DRF_CODES = {
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    413: errors.PayloadTooLarge,
    429: errors.TooManyRequests,
}


class MethodNotAllowed(errors.DomainError):
    """The path does not support the method."""

    code, title, status = "method_not_allowed", "Method not allowed", 405


class _NotAcceptable(errors.DomainError):
    code, title, status = "not_acceptable", "Not acceptable", 406


class _Contended(errors.Unavailable):
    retry_span_s = 3  # seconds; short, because the other change will finish soon


class _Internal(errors.DomainError):
    code, title, status = "internal", "Internal error", 500


def _from_drf(exc: drf.APIException) -> errors.DomainError:
    if isinstance(exc, drf.ValidationError):
        found = list(field_errors(exc.detail))
        return errors.InvalidInput(" ".join(e.detail for e in found[:3]), errors=found)
    kind: type[errors.DomainError] = {
        drf.MethodNotAllowed: MethodNotAllowed,
        drf.NotAcceptable: _NotAcceptable,
        drf.UnsupportedMediaType: errors.UnsupportedMediaType,
    }.get(type(exc), _DRF_CODES.get(exc.status_code, errors.InvalidInput))
    return kind(str(exc.detail))


def _from_integrity(exc: IntegrityError) -> errors.DomainError | None:
    cause = exc.__cause__
    if isinstance(cause, pg.UniqueViolation):
        constraint = cause.diag.constraint_name or ""
        if constraint.endswith("_unique_name"):
            return errors.Conflict("That name is already taken. Choose another one.", code="name_taken")
        if constraint.endswith("_unique_slug"):
            return errors.Conflict("That slug is already taken. Choose another one.", code="slug_taken")
        return errors.Conflict("The request conflicts with a resource that already exists.", code="exists")
    if isinstance(cause, pg.ForeignKeyViolation):
        return errors.Conflict(
            "While the request was processed, a resource that it refers to was deleted or came into use.", code="gone"
        )
    return None


def full_disk_error() -> errors.Unavailable:
    """Return the error for a request that fails because the server's disk is full, almost full or broken."""
    return errors.Unavailable(
        "The server's disk is full, almost full or not writable. Nothing was changed; try again later.", retry_after=10
    )


def full_disk_upload_error() -> errors.InsufficientStorage:
    """Return the error for an upload that fails because the server's disk is full, almost full or broken."""
    return errors.InsufficientStorage(
        "The server's disk is full, almost full or not writable. Nothing was stored; try again later.", retry_after=30
    )


def _from_infrastructure(exc: BaseException | None) -> errors.Unavailable | None:
    """Return the error if the disk or the database failed, including timeouts and lock conflicts; otherwise None."""
    match exc:
        case OSError() | DatabaseError() if space.is_disk_error(exc):
            logger.error("disk_trouble", error=str(exc).partition("\n")[0])
            return full_disk_error()
        case OperationalError() if isinstance(exc.__cause__, (pg.DeadlockDetected, pg.LockNotAvailable)):
            return _Contended("The resource is being changed at the same time. Try again.", retry_after=1)
        case OperationalError() if isinstance(exc.__cause__, pg.QueryCanceled):
            logger.error("statement_timeout")
            return errors.Unavailable(
                "The database query took too long. Try again, or request less data.", retry_after=5
            )
        case InternalError() if isinstance(exc.__cause__, (pg.IdleInTransactionSessionTimeout, pg.TransactionTimeout)):
            logger.error("transaction_timeout")
            return errors.Unavailable("The request took too long and was canceled. Try again.", retry_after=5)
        case OperationalError() if isinstance(exc.__cause__, (Unresponsive, pg.ConnectionTimeout)):
            logger.error("database_unresponsive", error=str(exc))
            return errors.unresponsive_database_error()
        case OperationalError() | InterfaceError() | PoolTimeout():
            logger.error("database_unavailable", error=str(exc).splitlines()[0] if str(exc) else type(exc).__name__)
            return errors.Unavailable("The database is not available. Try again later.", retry_after=5)
    return None


def as_domain_error(exc: Exception) -> errors.DomainError:
    """Convert an exception to a domain error. An unexpected exception is logged and becomes a 500 without details."""
    match exc:
        case errors.DomainError():
            return exc
        case drf.APIException():
            return _from_drf(exc)
        case Http404():
            return errors.NotFound("There is no resource at this URL.")
        case PermissionDenied():
            return errors.Forbidden("Your role does not permit this.")
        case RequestDataTooBig() | TooManyFilesSent():
            return errors.PayloadTooLarge("The body is too large or contains too many files.")
        case UnreadablePostError():
            return errors.InvalidInput("The body is incomplete.", code="truncated")
        case SuspiciousOperation():
            return errors.InvalidInput("The request is malformed.")
        case IntegrityError() if (known := _from_integrity(exc)) is not None:
            return known
    if (unavailable := _from_infrastructure(exc)) is not None:
        return unavailable
    logger.error("unhandled_error", exc_info=exc)
    return _Internal("An unexpected error occurred. The server logged it with this request id.")


def problem_body(request: HttpRequest, error: errors.DomainError) -> dict[str, Any]:
    """Return the ``application/problem+json`` body of an error."""
    body = errors.problem(
        code=error.reason,
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=request.path,
        request_id=request.META.get("HTTP_X_REQUEST_ID"),
        **error.members,
    )
    if error.errors:
        body["errors"] = [asdict(each) for each in error.errors]
    if error.more_errors:
        body["more_errors"] = error.more_errors
    return body


def _headers(error: errors.DomainError) -> dict[str, str]:
    headers = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        # Random, so that agents whose requests failed at the same time do not retry at the same time.
        spread = random.randint(0, error.retry_span_s)  # noqa: S311  not a secret
        headers["Retry-After"] = str(error.retry_after + spread)
    return headers


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response:
    """Convert an exception in a DRF view to a problem response. This is DRF's ``EXCEPTION_HANDLER``."""
    error = as_domain_error(exc)
    request = context["request"]
    response = Response(problem_body(request, error), status=error.status, headers=_headers(error))
    response.content_type = errors.CONTENT_TYPE
    if isinstance(exc, drf.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response


def respond(request: HttpRequest, error: errors.DomainError) -> HttpResponse:
    """Return the problem response of an error outside DRF, in plain views, middleware and Django's handlers."""
    return JsonResponse(
        problem_body(request, error), status=error.status, headers=_headers(error), content_type=errors.CONTENT_TYPE
    )


def accepts_html(request: HttpRequest | Request) -> bool:
    """Return whether the client accepts HTML, as a browser does."""
    return "text/html" in request.META.get("HTTP_ACCEPT", "")


def respond_or_show_page(request: HttpRequest, error: errors.DomainError) -> HttpResponse:
    """Return an HTML page for a browser's request outside the API, and problem+json in all other cases."""
    if request.path.startswith("/api/") or not accepts_html(request):
        return respond(request, error)
    # Do not use the request's context processors: the page must also render when the database is down.
    page = render_to_string("error.html", {"error": error, "request_id": request.META.get("HTTP_X_REQUEST_ID")})
    return HttpResponse(page, status=error.status, headers=_headers(error))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page or problem for a malformed request. It has the signature of Django's ``handler400``."""
    return respond_or_show_page(request, errors.InvalidInput("The request is malformed."))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page or problem for a forbidden request. It has the signature of Django's ``handler403``."""
    return respond_or_show_page(request, errors.Forbidden("Your role does not permit this."))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the page or problem for a failed CSRF check. It has the signature of ``CSRF_FAILURE_VIEW``."""
    return respond_or_show_page(
        request, errors.Forbidden("The form has expired or came from another site. Reload the page and send it again.")
    )


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the page or problem for a missing resource or path. It has the signature of Django's ``handler404``."""
    return respond_or_show_page(request, errors.NotFound("There is no resource at this URL."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Return the page or problem for a failed request. It has the signature of Django's ``handler500``.

    A failure of the database or the disk is a 503, as in the API.
    """
    unavailable = _from_infrastructure(sys.exc_info()[1])
    return respond_or_show_page(
        request, unavailable or _Internal("An unexpected error occurred. The server logged it with this request id.")
    )
