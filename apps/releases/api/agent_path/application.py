"""The WSGI layer in front of Django. ``AgentPath.__call__`` handles one request of an agent."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from django.conf import settings

from apps.fleet.api.authentication import finish_rotation
from apps.fleet.api.serializers import heartbeat_response
from apps.fleet.services import heartbeats
from apps.fleet.services.verified_keys import KnownKey, agent_keys, key_uses
from apps.releases.api.agent_path.exchange import (
    HEARTBEAT,
    POLL,
    REPORT,
    Call,
    Exchange,
    Response,
    Route,
    StartResponse,
    recognize,
)
from apps.releases.api.agent_path.refused import refused_agents
from apps.releases.api.agent_path.waiting import StopReason, WaitingRoom
from apps.releases.api.offered import Offered, accept_report, read_offer
from apps.tenancy.api import limits
from apps.tenancy.api.authentication import bearer_in, known_family
from apps.tenancy.credentials import UNUSABLE, Family, credential_digest
from byteor_cloud.api import bodies, request_slots
from byteor_cloud.api.etags import matches_tag
from byteor_cloud.api.parsers import parse_json
from byteor_cloud.api.refusals import Pace
from byteor_cloud.concurrency.fair import Holder
from byteor_cloud.database.connections import release_connection
from byteor_cloud.errors import Unauthenticated, Unavailable
from byteor_cloud.server import draining, open_connections, pauses

type Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

waiting_room = WaitingRoom(processes=settings.CONFIG.api_processes)
refusals = Pace()
agent_keys.on_change(waiting_room.wake)
draining.on_drain(waiting_room.close)


class AgentPath:
    """A WSGI layer that handles agents' usual heartbeats, polls and reports, and passes other requests to Django."""

    def __init__(self, django: Application) -> None:
        self._django = django

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request, or pass it to Django."""
        call = recognize(environ)
        if call is None:
            return self._django(environ, start_response)
        exchange = Exchange(environ, call.route)
        try:
            response = _respond(exchange, call)
        except Unauthenticated as error:
            response = exchange.problem(error)._replace(waited_s=refusals.wait())
        except Exception as error:  # noqa: BLE001,RUF100  every error must become a problem, as in Django's views
            response = exchange.problem(error)
        if response is None:
            return self._django(environ, start_response)
        return exchange.send(response, start_response)


def _respond(exchange: Exchange, call: Call) -> Response | None:
    """Check the credential and the rate limit, and handle the request. Returns None if Django must handle it."""
    key = _verify(exchange.environ, call)
    if key is None:
        return None
    open_connections.note_caller(exchange.environ, key.digest)
    exchange.usage = limits.count_agent(key.agent_id)
    if exchange.usage is not None:
        exchange.usage.check()
    if key.is_pending:
        _finish_rotation(exchange, key)
    key_uses.note(key)
    return _HANDLERS[call.route](exchange, call, key)


def _holder(key: KnownKey) -> Holder:
    return Holder(str(key.organization_id), "agents", f"agent:{key.agent_id}")


def _finish_rotation(exchange: Exchange, key: KnownKey) -> None:
    try:
        with request_slots.slot(_holder(key)):
            finish_rotation(exchange.request, key.digest)
    finally:
        release_connection()
    key.is_pending = False


def _verify(environ: dict[str, Any], call: Call) -> KnownKey | None:
    """Return the caller's agent key. Raises Unauthenticated if it is unusable or malformed.

    Returns None if the request has no credential or one of another family, or if the key does not permit the request.
    Then Django refuses the request.
    """
    text = bearer_in(environ.get("HTTP_AUTHORIZATION", ""))
    if text is None or known_family(text) is not Family.AGENT:
        return None
    key = agent_keys.find(credential_digest(text))
    if key is None:
        refused_agents.note(call.agent_id)
        raise Unauthenticated(UNUSABLE)
    return key if key.agent_id == call.agent_id and call.route.scope in key.scopes else None


# -- heartbeats ------------------------------------------------------------------------------------------------------


def _beat(exchange: Exchange, call: Call, key: KnownKey) -> Response:
    body = heartbeats.parse(_read_json(exchange))
    stored = heartbeats.store(
        agent_id=key.agent_id, organization_id=key.organization_id, interval_s=key.interval_s, heartbeat=body
    )
    if stored is None:
        raise Unauthenticated(UNUSABLE)
    return _json(heartbeat_response(key.agent_id, stored, key_set_etag=key.key_set_etag))


def _read_json(exchange: Exchange) -> Any:
    return parse_json(bodies.read_sized_body(exchange.environ, settings.CONFIG.max_agent_body_bytes))


def _json(document: Any) -> Response:
    return Response(200, json.dumps(document).encode())


# -- polls -----------------------------------------------------------------------------------------------------------


def _poll(exchange: Exchange, call: Call, key: KnownKey) -> Response:
    """Return the agent's offer, or 304 if the agent has that offer and the wait ends before the offer changes.

    After a wait, the key and the offer are checked again.
    """
    if_none_match = exchange.environ.get("HTTP_IF_NONE_MATCH", "")
    deadline, waited_s = time.monotonic() + call.wait_s, 0.0
    reason = StopReason.CHANGED if call.wait_s else StopReason.TIMED_OUT
    burst = None
    while True:
        # Enter the waiting room before reading the offer, so no change in between is missed.
        waiter = waiting_room.enter(key.agent_id, key.environment_id) if reason is StopReason.CHANGED else None
        try:
            tag, offered = _read_if_changed(key, if_none_match)
            if offered is not None:
                body = offered.text.encode()
                if burst is not None:
                    pauses.rest_before_next(exchange.environ, partial(waiting_room.rest, burst))
                return Response(200, body, headers=(("ETag", tag),), waited_s=waited_s)
            if waiter is None:
                return _unchanged(tag, reason, waited_s)
            started = time.monotonic()
            reason = waiting_room.wait(waiter, deadline - started)
            waited_s += time.monotonic() - started
            burst = waiter.burst
        finally:
            if waiter is not None:
                waiting_room.leave(waiter)
        found = agent_keys.find(key.digest)
        if found is None:
            raise Unauthenticated(UNUSABLE)
        key = found


def _read_if_changed(key: KnownKey, if_none_match: str) -> tuple[str, Offered | None]:
    """Return the ETag of the agent's offer, and the offer unless ``if_none_match`` matches the ETag.

    Makes no query if ``if_none_match`` matches a cached ETag.
    """
    changes = key.offer_changes
    tag = agent_keys.known_tag(key)
    if tag is not None and matches_tag(if_none_match, tag):
        return tag, None
    offered = read_offer(key.agent_id)
    agent_keys.keep_tag(key, offered.etag, changes=changes)
    return offered.etag, None if matches_tag(if_none_match, offered.etag) else offered


def _unchanged(tag: str, reason: StopReason, waited_s: float) -> Response:
    headers = [("ETag", tag)]
    if reason is StopReason.FULL:
        headers.append(("Retry-After", str(random.randint(5, 5 + Unavailable.retry_span_s))))  # noqa: S311  spreads load
    return Response(304, content_type=None, headers=tuple(headers), waited_s=waited_s)


# -- reports ---------------------------------------------------------------------------------------------------------


def _report(exchange: Exchange, call: Call, key: KnownKey) -> Response:
    body = _read_json(exchange)
    try:
        with request_slots.slot(_holder(key)):
            return _json(accept_report(body, agent_id=key.agent_id, environment_id=key.environment_id))
    finally:
        release_connection()


_HANDLERS: dict[Route, Callable[[Exchange, Call, KnownKey], Response]] = {
    HEARTBEAT: _beat,
    POLL: _poll,
    REPORT: _report,
}
