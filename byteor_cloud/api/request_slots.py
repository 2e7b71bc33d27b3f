"""Request slots: requests share ``BYTEOR_CLOUD_API_THREADS`` slots fairly. Static files, probes and scrapes need no
slot, and neither do the usual heartbeats and polls of agents.

In an event loop, each request in progress delays all others a little and competes for database connections. Requests
that find no free slot wait, and organizations take turns (``byteor_cloud.concurrency.fair``), so that a burst from one
organization hardly delays other organizations, heartbeats and probes.

A slot counts for a caller in an organization. The caller is known only after its credential has been verified, which
already needs a slot. Until then, the request counts for the last caller that used the same credential, and the same
organization in the path of the API, or for its client address if there was no such caller.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from byteor_cloud.api import problems
from byteor_cloud.concurrency import deadline, event_loop
from byteor_cloud.concurrency.fair import FairSlots, Holder
from byteor_cloud.errors import Unavailable
from byteor_cloud.server import open_connections

# The seconds for which a request may wait for slots in total (``RequestSlot.take`` may allow a little more). They are
# fewer than ``deadline.REQUEST_S``, so that time is left to handle the request.
MAX_WAIT_S = 6.0
MAX_WAITING = 1_000
MAX_KNOWN = 10_000
# Probes and scrapes need no slot, because they must succeed even if all are taken. Heartbeats need none either, because
# they are stored in batches.
_EXEMPT = ("/healthz", "/readyz", "/metrics")
_ATTRIBUTE = "_slot"
_ORGANIZATION = re.compile(r"/api/v1/orgs/([0-9a-f-]{36})")
_slots = FairSlots(settings.CONFIG.api_threads, waiting=MAX_WAITING)
_known: dict[bytes, Holder] = {}


class RequestSlot:
    """The slot of one request. It can be released while the request waits, and taken again."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self._is_held = self._was_held = False
        self._patience_s = MAX_WAIT_S

    def take(self) -> None:
        """Take the slot, or wait for it.

        Raises Unavailable if the total waiting time of the request is used up, or if too many requests are waiting.
        A request that had a slot before may wait for at least ``deadline.LEAST_S``.
        """
        if self._was_held:  # the body has arrived, so do not discard it too soon
            deadline.ensure_least()
            self._patience_s = max(self._patience_s, deadline.LEAST_S)
        began = time.monotonic()
        with deadline.waiting() as left_s:
            patience_s = self._patience_s if left_s is None else min(self._patience_s, left_s)
            # A request that had a slot before precedes the caller's other requests: its body is probably in memory.
            _slots.take(self.holder, timeout_s=patience_s, is_first=self._was_held)
        self._is_held = self._was_held = True
        self._patience_s -= time.monotonic() - began

    def give_back(self) -> None:
        """Release the slot if the request holds one."""
        if self._is_held:
            self._is_held = False
            _slots.give_back(self.holder)

    def count_for(self, holder: Holder) -> None:
        """Count the slot for ``holder`` from now on."""
        if self._is_held:
            _slots.move(self.holder, holder)
        self.holder = holder


def hold_slot(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Hold a slot while a request that needs one is handled. Return 503 if the request does not get a slot."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path in _EXEMPT or request.path.endswith("/heartbeat"):
            return get_response(request)
        held = RequestSlot(_known.get(_key(request)) or _stranger(request))
        try:
            held.take()
        except Unavailable as error:
            return problems.respond_or_show_page(request, error)
        setattr(request, _ATTRIBUTE, held)
        try:
            with event_loop.computing_for(held.holder.organization):
                return get_response(request)
        finally:
            held.give_back()

    return middleware


def _key(request: HttpRequest) -> bytes:
    """Return a digest of the request's credential and of the organization in its path, if it is a path of the API."""
    credential = request.META.get("HTTP_AUTHORIZATION") or request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    named = _ORGANIZATION.match(request.path)
    return hashlib.sha256(f"{named[1] if named else ''} {credential}".encode()).digest()


def _stranger(request: HttpRequest) -> Holder:
    """Return the holder for a caller that is not known yet. All unknown callers together count as one organization."""
    return Holder("strangers", "", open_connections.address_of(request.META))


def holder_of(request: HttpRequest) -> Holder:
    """Return the holder that the request counts for."""
    held: RequestSlot | None = getattr(request, _ATTRIBUTE, None)
    return _stranger(request) if held is None else held.holder


def count_for(request: HttpRequest, holder: Holder) -> None:
    """Count the request, and later ones with the same ``_key``, for the verified ``holder``."""
    open_connections.note_caller(request.META, holder.caller)
    held: RequestSlot | None = getattr(request, _ATTRIBUTE, None)
    if held is None or held.holder == holder:
        return
    held.count_for(holder)
    event_loop.set_owner(holder.organization)
    key = _key(request)
    _known.pop(key, None)
    _known[key] = holder
    if len(_known) > MAX_KNOWN:
        del _known[next(iter(_known))]


@contextmanager
def slot(holder: Holder) -> Iterator[None]:
    """Hold a slot while the block runs. Raises Unavailable if the holder does not get one."""
    held = RequestSlot(holder)
    held.take()
    try:
        yield
    finally:
        held.give_back()


@contextmanager
def released_slot(request: HttpRequest) -> Iterator[None]:
    """Release the request's slot while the block waits, for example for the client.

    Raises Unavailable if the request then gets no slot again.
    """
    held: RequestSlot | None = getattr(request, _ATTRIBUTE, None)
    if held is None:
        yield
        return
    held.give_back()
    try:
        yield
    finally:
        held.take()
