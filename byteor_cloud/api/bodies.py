"""Receiving bodies within size limits, and sending responses, without occupying scarce resources for slow clients.

In the API, a view authenticates the caller, then calls ``check_declared_length``, and only then reads the body. Outside
the API, ``receive_form`` reads the body before the view is called. The scarce resources are database connections and
the slots of ``byteor_cloud.api.request_slots``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, UnreadablePostError

from byteor_cloud.api import problems, request_slots
from byteor_cloud.concurrency import deadline
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import DomainError, InvalidInput, PayloadTooLarge, RequestTimeout, unresponsive_database_error

# The size limit in bytes for forms of callers who are not signed in, such as the small forms of /auth.
ANONYMOUS_FORM_BYTES = 64 * 1024
_PIECE_BYTES = 16 * 1024
_reading = threading.BoundedSemaphore(1)
_EMPTY_STATUSES = frozenset({204, 304})
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@contextmanager
def waiting_for_client(request: HttpRequest) -> Iterator[None]:
    """Release the database connection and the request slot while the block reads from the client.

    Raises Unavailable if the request then gets no slot again.
    """
    release_connection()
    with request_slots.released_slot(request):
        yield


def is_chunked(request: HttpRequest) -> bool:
    """Return whether the body uses chunked encoding, without a declared length."""
    return bool(request.META.get("wsgi.input_terminated") and request.META.get("HTTP_TRANSFER_ENCODING"))


def declared_length(request: HttpRequest) -> int:
    """Return the body's declared length in bytes, or 0 if no valid length is declared."""
    text = str(request.META.get("CONTENT_LENGTH") or "")
    return int(text) if text.isascii() and text.isdigit() else 0


def check_declared_length(request: HttpRequest, cap: int) -> None:
    """Raise PayloadTooLarge if the declared length of the body exceeds ``cap`` bytes. Reads nothing."""
    if declared_length(request) > cap:
        raise PayloadTooLarge(f"The body is larger than {cap} bytes.")


def read_body(request: HttpRequest, cap: int) -> bytes:
    """Read the whole body, of at most ``cap`` bytes, into memory.

    Raises PayloadTooLarge, InvalidInput if the body is truncated, RequestTimeout if it arrives too slowly, and
    Unavailable if the request then gets no slot.
    """
    check_declared_length(request, cap)
    stream: IO[bytes] | HttpRequest = request.META["wsgi.input"] if is_chunked(request) else request
    try:
        with waiting_for_client(request):
            body = stream.read(cap + 1)
    except (UnreadablePostError, OSError) as error:
        raise interrupted_body_error(error) from None
    if len(body) > cap:
        raise PayloadTooLarge(f"The body is larger than {cap} bytes.")
    if len(body) < declared_length(request):
        raise interrupted_body_error(None)
    return body


def read_sized_body(environ: Mapping[str, Any], cap: int) -> bytes:
    """Read a body of declared length, like ``read_body``, for code that holds no database connection and no slot."""
    length = int(environ["CONTENT_LENGTH"])
    if length > cap:
        raise PayloadTooLarge(f"The body is larger than {cap} bytes.")
    try:
        body: bytes = environ["wsgi.input"].read(length)
    except OSError as error:
        raise interrupted_body_error(error) from None
    if len(body) < length:
        raise interrupted_body_error(None)
    return body


def interrupted_body_error(error: OSError | None) -> DomainError:
    """Return the error for an incomplete body: it arrived too slowly (``front_door.PacedSocket``) or was truncated."""
    cause = error.__cause__ or error.__context__ if isinstance(error, UnreadablePostError) else error
    if isinstance(cause, TimeoutError):
        return RequestTimeout("The body arrived too slowly.")
    return InvalidInput("The body is incomplete.", code="truncated")


def receive_form(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Read the bodies of requests outside the API. This is the last middleware, because it needs the signed-in user.

    Django's CSRF check reads the form before the view does, so the size must be limited here.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method in _BODILESS or request.path.startswith("/api/"):
            return get_response(request)
        try:
            check_declared_length(request, settings.CONFIG.max_body_bytes)
            cap = settings.CONFIG.max_body_bytes if request.user.is_authenticated else ANONYMOUS_FORM_BYTES
            # Django parses the form from these bytes.
            request._body = read_body(request, cap)  # the attribute in which HttpRequest.body keeps the body
        except Exception as error:  # noqa: BLE001,RUF100  exceptions raised here do not reach the handlers of views
            return problems.respond_or_show_page(request, problems.as_domain_error(error))
        return get_response(request)

    return middleware


def finish_response(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Release the database connection when the response is ready, since the client may read it slowly.

    Also set ``Content-Length`` if the length is known.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        release_connection()
        if not response.streaming and response.status_code not in _EMPTY_STATUSES:
            response.setdefault("Content-Length", str(len(response.content)))
        return response

    return middleware


def join_lines(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield pieces of about 16 KiB, joined from lines that are read from the database.

    The connection is released between pieces, since the client may be slow. Only one stream per process reads at a
    time, so that a thousand fast clients cannot overload the database.
    """
    source = iter(lines)
    while True:
        with deadline.limited(deadline.REQUEST_S), _reader():
            piece = _next_piece(source)
            release_connection()
        if not piece:
            return
        yield piece


@contextmanager
def _reader() -> Iterator[None]:
    with deadline.waiting() as left_s:
        is_acquired = _reading.acquire(timeout=left_s)
    if not is_acquired:
        raise unresponsive_database_error()
    try:
        yield
    finally:
        _reading.release()


def _next_piece(source: Iterator[str]) -> bytes:
    piece = bytearray()
    for line in source:
        piece += line.encode()
        if len(piece) >= _PIECE_BYTES:
            break
    return bytes(piece)
