"""Slots that limit how many requests a process handles at once, so that bursts do not delay heartbeats and probes.

In an event loop each request in progress delays all others a little and competes for database connections. So at
most ``BYTEOR_CLOUD_API_THREADS`` requests are in progress; the others wait in order of arrival.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from byteor_cloud.api import problems
from byteor_cloud.errors import Unavailable
from byteor_cloud.fair import Holder

MAX_WAIT_S = 25.0
# Heartbeats are combined into shared statements; a probe that waits for a slot would report nothing useful.
_EXEMPT = ("/healthz", "/readyz", "/metrics")
_ATTRIBUTE = "_has_slot"
_slots = threading.Semaphore(settings.CONFIG.api_threads)


def hold_slot(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Hold a slot while a request is handled; answer 503 if none becomes free in time."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path in _EXEMPT or request.path.endswith("/heartbeat"):
            return get_response(request)
        try:
            _acquire()
        except Unavailable as error:
            return problems.respond_or_show_page(request, error)
        setattr(request, _ATTRIBUTE, True)
        try:
            return get_response(request)
        finally:
            _slots.release()

    return middleware


def _acquire() -> None:
    if not _slots.acquire(timeout=MAX_WAIT_S):
        raise Unavailable("The service is busy. Try again later.", retry_after=10)


@contextmanager
def slot() -> Iterator[None]:
    """Hold a slot while the block runs. Raises Unavailable if none becomes free in time."""
    _acquire()
    try:
        yield
    finally:
        _slots.release()


@contextmanager
def released_slot(request: HttpRequest) -> Iterator[None]:
    """Release the request's slot to other requests while the block waits for the client or for a shared statement."""
    if not hasattr(request, _ATTRIBUTE):
        yield
        return
    _slots.release()
    try:
        yield
    finally:
        # Wait for a slot without a time limit, so that a body that has arrived completely is not thrown away.
        _slots.acquire()


def holder_of(request: HttpRequest) -> Holder:
    """Return whom the request counts for; nobody before its credential is recognized."""
    holder: Holder = getattr(request, "holder", Holder("", "", ""))
    return holder
