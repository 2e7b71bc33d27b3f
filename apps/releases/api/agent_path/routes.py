"""Recognizes the requests that the layer answers. Everything unusual about a request leaves it to Django."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from django.urls import resolve
from django.utils.functional import cached_property

from apps.releases.api.offered import MAX_WAIT_S
from byteor_cloud.storage import space

_PATH = re.compile(
    r"/api/v1/agents/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/(heartbeat|deployment)"
)
_WAIT = re.compile(r"(?:wait_s=(0|[1-9][0-9]?))?", re.ASCII)
_LENGTH = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)


class Route:
    """An operation of the layer, with the scope that its key needs."""

    def __init__(self, method: str, resource: str, scope: str) -> None:
        self.method, self.resource, self.scope = method, resource, scope

    @cached_property
    def view_name(self) -> str:
        """The name of the operation's view, under which django-prometheus counts its requests."""
        return resolve(f"/api/v1/agents/{UUID(int=0)}/{self.resource}").view_name


HEARTBEAT = Route("POST", "heartbeat", "agent:heartbeat")
POLL = Route("GET", "deployment", "agent:deployment")
REPORT = Route("POST", "deployment", "agent:deployment")
_ROUTES = {(route.method, route.resource): route for route in (HEARTBEAT, POLL, REPORT)}


class Call(NamedTuple):
    """A recognized request: the operation, the agent in the path, and the seconds that a poll may wait."""

    route: Route
    agent_id: UUID
    wait_s: int


def recognize(environ: Mapping[str, Any]) -> Call | None:
    """Return what the request asks for, or None if Django must answer it."""
    match = _PATH.fullmatch(environ["PATH_INFO"])
    route = _ROUTES.get((environ["REQUEST_METHOD"], match[2])) if match else None
    if match is None or route is None or environ.get("SCRIPT_NAME"):
        return None
    wait = _WAIT.fullmatch(environ["QUERY_STRING"])
    wait_s = int(wait[1] or 0) if wait else 0
    if wait is None or wait_s > MAX_WAIT_S or (wait[1] and route is not POLL):
        return None
    if route is POLL:
        has_usual_form = not environ.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" not in environ
    else:
        has_usual_form = (
            environ.get("CONTENT_TYPE") == "application/json"
            and _LENGTH.fullmatch(environ.get("CONTENT_LENGTH") or "") is not None
            and "HTTP_TRANSFER_ENCODING" not in environ
            and not (route is REPORT and "HTTP_IDEMPOTENCY_KEY" in environ)
            and not space.is_low_for_database()
        )
    return Call(route, UUID(match[1]), wait_s) if has_usual_form else None
