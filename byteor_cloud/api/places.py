"""How many requests a process works on at once, so that a burst of thousands leaves heartbeats and probes their turn.

In an event loop each request that is under way delays all others a little, and competes for database connections.
So only as many are under way as ``BYTEOR_CLOUD_API_THREADS`` says; the others wait in the order in which they came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from byteor_cloud.api import problems
from byteor_cloud.errors import Unavailable

PATIENCE_S = 25.0
# Heartbeats share their statements, and nobody would learn from a probe that waits for its turn.
_EXEMPT = ("/healthz", "/readyz", "/metrics")
_ATTRIBUTE = "_has_place"
_places = threading.Semaphore(settings.CONFIG.api_threads)


def take_place(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Let a request wait for its place, and answer 503 when it waited too long."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path in _EXEMPT or request.path.endswith("/heartbeat"):
            return get_response(request)
        if not _places.acquire(timeout=PATIENCE_S):
            return problems.answer(request, Unavailable("The service is busy. Try again later.", retry_after=10))
        setattr(request, _ATTRIBUTE, True)
        try:
            return get_response(request)
        finally:
            _places.release()

    return middleware


@contextmanager
def given_up(request: HttpRequest) -> Iterator[None]:
    """Give the request's place to others while the block waits for the client."""
    if not hasattr(request, _ATTRIBUTE):
        yield
        return
    _places.release()
    try:
        yield
    finally:
        # Without an end: what a client has sent with patience is not thrown away.
        _places.acquire()
