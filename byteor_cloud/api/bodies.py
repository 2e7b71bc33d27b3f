"""Request bodies: how large one may be, and that nothing scarce is held while one arrives.

A view admits a body when it knows who sends it (``admit``), and only then receives it. The forms of the console and
of ``/auth`` go through ``receive_form``, before anything of Django's reads them. Scarce are database connections and
the places of ``byteor_cloud.api.places``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from django.conf import settings
from django.http import HttpRequest, HttpResponse, UnreadablePostError

from byteor_cloud.api import places, problems
from byteor_cloud.database import release_connection
from byteor_cloud.errors import DomainError, InvalidInput, PayloadTooLarge, RequestTimeout

# What a form may hold whose sender has not signed in: the forms of /auth are a token and a button.
ANONYMOUS_FORM_BYTES = 64 * 1024
_PIECE_BYTES = 16 * 1024
_reading = threading.BoundedSemaphore(1)
_EMPTY_STATUSES = frozenset({204, 304})
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@contextmanager
def waiting_for_client(request: HttpRequest) -> Iterator[None]:
    """While the block reads from the client, hold neither a database connection nor a place."""
    release_connection()
    with places.given_up(request):
        yield


def is_chunked(request: HttpRequest) -> bool:
    """Tell whether the body comes in chunks, without a declared length."""
    return bool(request.META.get("wsgi.input_terminated") and request.META.get("HTTP_TRANSFER_ENCODING"))


def declared_length(request: HttpRequest) -> int:
    """Return the body's declared length in bytes; 0 without one."""
    text = str(request.META.get("CONTENT_LENGTH") or "")
    return int(text) if text.isascii() and text.isdigit() else 0


def admit(request: HttpRequest, cap: int) -> None:
    """Refuse a body that says that it is longer than ``cap`` bytes. Raises PayloadTooLarge, and reads nothing."""
    if declared_length(request) > cap:
        raise PayloadTooLarge(f"The body is over {cap} bytes.")


def read(request: HttpRequest, cap: int) -> bytes:
    """Receive the whole body, of at most ``cap`` bytes, into memory.

    Raises PayloadTooLarge, InvalidInput when it ends early, and RequestTimeout when it comes too slowly.
    """
    admit(request, cap)
    stream: IO[bytes] | HttpRequest = request.META["wsgi.input"] if is_chunked(request) else request
    try:
        with waiting_for_client(request):
            body = stream.read(cap + 1)
    except (UnreadablePostError, OSError) as error:
        raise interrupted(error) from None
    if len(body) > cap:
        raise PayloadTooLarge(f"The body is over {cap} bytes.")
    if len(body) < declared_length(request):
        raise interrupted(None)
    return body


def interrupted(error: OSError | None) -> DomainError:
    """Return the refusal of a body that did not arrive whole: too slow (``front_door.PacedSocket``), or cut off."""
    cause = error.__cause__ or error.__context__ if isinstance(error, UnreadablePostError) else error
    if isinstance(cause, TimeoutError):
        return RequestTimeout("The body came too slowly.")
    return InvalidInput("The body ended before its declared length.", code="truncated")


def receive_form(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Receive the bodies of the routes outside the API: the last middleware, so that it knows who is signed in.

    Django's CSRF check reads the form before the view does. Here it is bounded first, and kept in memory.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.method in _BODILESS or request.path.startswith("/api/"):
            return get_response(request)
        try:
            admit(request, settings.CONFIG.max_body_bytes)
            cap = settings.CONFIG.max_body_bytes if request.user.is_authenticated else ANONYMOUS_FORM_BYTES
            # Django parses the form from these bytes.
            request._body = read(request, cap)  # what HttpRequest.body fills
        except Exception as error:  # noqa: BLE001,RUF100  the views' own handlers are not reached from here
            return problems.answer(request, problems.as_domain_error(error))
        return get_response(request)

    return middleware


def finish_answer(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Release the database connection when the answer is made, since the client may read it slowly.

    A length is declared where it is known: without one each answer would be sent in three pieces.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        release_connection()
        if not response.streaming and response.status_code not in _EMPTY_STATUSES:
            response.setdefault("Content-Length", str(len(response.content)))
        return response

    return middleware


def stream(lines: Iterable[str]) -> Iterator[bytes]:
    """Join lines that are read from the database to pieces of about 16 KiB.

    Between pieces no connection is held, since the client may be slow. One stream of a process reads at a time, so
    that a thousand fast clients leave the database to everybody else.
    """
    source = iter(lines)
    while True:
        with _reading:
            piece = _next_piece(source)
            release_connection()
        if not piece:
            return
        yield piece


def _next_piece(source: Iterator[str]) -> bytes:
    piece = bytearray()
    for line in source:
        piece += line.encode()
        if len(piece) >= _PIECE_BYTES:
            break
    return bytes(piece)
