"""Recognize agents' requests, and send responses with nearly the same headers and metrics as Django.

A request of an unusual form is left to Django. Offers and delayed refusals are not logged.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csp import ContentSecurityPolicyMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import resolve
from django.utils.functional import cached_property
from django_prometheus.middleware import Metrics

from apps.releases.api.offered import MAX_WAIT_S
from apps.tenancy.api.limits import RateLimitUsage
from byteor_cloud.api import problems, system
from byteor_cloud.api.middleware import choose_request_id
from byteor_cloud.storage import space

type StartResponse = Callable[[str, list[tuple[str, str]]], object]
_PATH = re.compile(
    r"/api/v1/agents/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/(heartbeat|deployment)"
)
_WAIT = re.compile(r"(?:wait_s=(0|[1-9][0-9]?))?", re.ASCII)
_LENGTH = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_BODILESS = frozenset({204, 304})
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Route:
    """An operation of the agent path, with the scope that the agent key needs."""

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
    """Parse the request's method, path, query and headers. Returns None if Django must handle the request."""
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


class Response(NamedTuple):
    """A response without the common headers. ``waited_s`` is a deliberate delay, which does not count as latency."""

    status: int
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    waited_s: float = 0.0


class Exchange:
    """One request in the agent path, with the values that the response's headers, metrics and log line need."""

    def __init__(self, environ: dict[str, Any], route: Route) -> None:
        self.environ, self.route = environ, route
        self.started = time.perf_counter()
        self.request_id = choose_request_id(environ)
        self.usage: RateLimitUsage | None = None

    @property
    def request(self) -> WSGIRequest:
        """The request as a Django request, for functions that Django's views also use."""
        return WSGIRequest(self.environ)

    def problem(self, error: Exception) -> Response:
        """Return the response for an error, and log the error if it is unexpected."""
        with structlog.contextvars.bound_contextvars(request_id=self.request_id):
            problem = problems.respond(self.request, problems.as_domain_error(error))
        headers = tuple((name, value) for name, value in problem.items() if name != "Content-Type")
        return Response(problem.status_code, problem.content, problem["Content-Type"], headers)

    def send(self, response: Response, start_response: StartResponse) -> list[bytes]:
        """Send the response. Count it, and write its log line if responses of this kind are logged."""
        headers = [*_security_headers(), ("X-Request-ID", self.request_id), ("Cache-Control", "private, no-store")]
        if response.status not in _BODILESS:
            headers += [
                ("Content-Type", response.content_type or ""),
                ("Content-Length", str(len(response.body))),
            ]
        headers += response.headers
        if self.usage is not None:
            headers += self.usage.headers.items()
        self._record(response)
        start_response(_STATUS_LINES[response.status], headers)
        return [response.body]

    def _record(self, response: Response) -> None:
        path = self.environ["PATH_INFO"]
        meter = _meter(self.route, self.environ["wsgi.url_scheme"], response.status)
        took_s = time.perf_counter() - self.started - response.waited_s
        meter.count(int(self.environ.get("CONTENT_LENGTH") or 0), len(response.body), took_s)
        system.count_outcome(path, response.status)
        is_offer = self.route is POLL and response.status == HTTPStatus.OK
        is_delayed_refusal = response.status == HTTPStatus.UNAUTHORIZED and response.waited_s > 0
        if system.is_logged(path, response.status) and not is_offer and not is_delayed_refusal:
            with structlog.contextvars.bound_contextvars(request_id=self.request_id):
                system.write_access_line(self.route.method, path, response.status, self.started)


@cache
def _security_headers() -> tuple[tuple[str, str], ...]:
    """Return the headers that Django's security middlewares set on every response."""
    get_response: Callable[[Any], Any] = lambda request: HttpResponse(content_type="x/y")  # noqa: E731
    for middleware in (XFrameOptionsMiddleware, ContentSecurityPolicyMiddleware, SecurityMiddleware):
        get_response = middleware(get_response)
    return tuple((name, value) for name, value in get_response(HttpRequest()).items() if name != "Content-Type")


class _Meter:
    """The metrics of django-prometheus for one combination of route, transport and status, looked up once.

    It adds directly to the values that prometheus_client stores, which is faster than calling the metrics' methods.
    """

    def __init__(self, route: Route, transport: str, status: int) -> None:
        m, view, method = Metrics.get_instance(), route.view_name, route.method
        counters = (
            m.requests_total,
            m.responses_total,
            m.requests_by_method.labels(method=method),
            m.requests_by_transport.labels(transport=transport),
            m.requests_by_view_transport_method.labels(view=view, transport=transport, method=method),
            m.responses_by_status.labels(status=str(status)),
            m.responses_by_status_view_method.labels(status=str(status), view=view, method=method),
            m.responses_by_charset.labels(charset="utf-8"),
        )
        self._counts = [counter._value for counter in counters]
        self._received, self._sent = m.requests_body_bytes, m.responses_body_bytes
        self._latencies = m.requests_latency_before, m.requests_latency_by_view_method.labels(view=view, method=method)

    def count(self, received: int, sent: int, took_s: float) -> None:
        for value in self._counts:
            value.inc(1)
        _observe(self._received, received)
        _observe(self._sent, sent)
        for latency in self._latencies:
            _observe(latency, took_s)


def _observe(histogram: Any, amount: float) -> None:
    histogram._sum.inc(amount)
    histogram._buckets[bisect_left(histogram._upper_bounds, amount)].inc(1)


@cache
def _meter(route: Route, transport: str, status: int) -> _Meter:
    return _Meter(route, transport, status)
