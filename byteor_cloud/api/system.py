"""Liveness, readiness, metrics, the access log: for load balancers and monitoring, without a credential."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, override

import structlog
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django_prometheus.middleware import PrometheusAfterMiddleware
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from byteor_cloud import space
from byteor_cloud.api import counters
from byteor_cloud.api import system_operations as operations
from byteor_cloud.errors import Unavailable

logger = structlog.get_logger("byteor.access")
DENIED_STATUSES = (401, 403, 429)
denied = Counter("byteor_denied_requests", "Requests refused for want of a credential, a right or a rate.", ["status"])
heartbeats = Counter("byteor_heartbeats", "Heartbeats stored.")
for _status in DENIED_STATUSES:
    denied.labels(str(_status))  # a series that starts at 0 shows its first increase


class HealthSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["alive", "ready"])
    descriptions = {
        "status": "The state of the service.",
    }


class OpenView(APIView):
    """For anybody, without a credential; always answered in its one form, whatever ``Accept`` says."""

    http_method_names = ["get", "head"]
    authentication_classes = []
    permission_classes = []
    throttle_classes = []

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """The first renderer."""
        return super().perform_content_negotiation(request, force=True)


class HealthView(OpenView):
    operations = operations.HEALTH

    @extend_schema(responses={200: HealthSerializer})
    def get(self, request: Request) -> Response:
        """Returns 200 when the service is alive; touches nothing."""
        return Response({"status": "alive"})


class ReadyView(OpenView):
    operations = operations.READY

    @extend_schema(responses={200: HealthSerializer, 503: OpenApiResponse(description="What is missing.")})
    def get(self, request: Request) -> Response:
        """Returns 200 when the service is ready to accept traffic; 503 names what is not."""
        # What a missing database's migrations are, nobody knows; asking would only wait for it once more.
        failed = ["database"] if not _passes(_database) else ["migrations"] if not _passes(_migrations) else []
        if not _passes(_storage):
            failed.append("storage")
        if not _passes(_disk):
            failed.append("disk")
        if failed:
            raise Unavailable(f"Not ready: {', '.join(failed)}.", retry_after=5)
        return Response({"status": "ready"})


class MetricsView(OpenView):
    operations = operations.METRICS
    domain: ClassVar[CollectorRegistry | None] = None
    """The domain's own series; the table of contents gives them."""

    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        """Prometheus-format metrics."""
        page = generate_latest(counters.registry())
        if self.domain is not None:
            page += generate_latest(self.domain)
        return HttpResponse(page, content_type=CONTENT_TYPE_LATEST)


class _NotThere(Exception):
    """What a check looks for."""


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@cache
def _migrations() -> None:
    """Remembered once true: no process unmigrates a database that it serves."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise _NotThere


def _storage() -> None:
    # One name a process, so that a probe that is cut off leaves at most this one small file.
    name = f"ready/{os.getpid()}"
    default_storage.delete(name)
    default_storage.save(name, ContentFile(b"ready"))
    default_storage.delete(name)


def _disk() -> None:
    if space.is_low():
        raise _NotThere


def _passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except Exception as error:  # noqa: BLE001,RUF100  whatever it is, it means not ready
        logger.warning("not_ready", check=check.__name__, kind=type(error).__name__)
        return False
    return True


def observe(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Bind the request's id to its log lines, write one of them for the request itself, count what was denied.

    Not logged is what comes every few seconds and went well: heartbeats, probes, scrapes; and static files.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request.META["HTTP_X_REQUEST_ID"]):
            response = get_response(request)
            status, path = response.status_code, request.path
            if path.endswith("/heartbeat") and status == 200:
                heartbeats.inc()
                return response
            if status in DENIED_STATUSES:
                denied.labels(str(status)).inc()
            if status >= 400 or not path.startswith(_QUIET):
                took = round((time.perf_counter() - started) * 1000, 1)
                logger.info("request", method=request.method, path=path, status=status, ms=took)
        return response

    return middleware


class CountRequests(PrometheusAfterMiddleware):  # type: ignore[misc]  # untyped library
    """django-prometheus's series, with as many labels as there are routes and methods.

    One of its histograms takes the method as the caller wrote it: anybody could add series for ever.
    """

    @override
    def label_metric(self, metric: Any, request: HttpRequest, response: Any = None, **labels: str) -> Any:
        if "method" in labels:
            labels["method"] = self._method(request)
        return super().label_metric(metric, request, response, **labels)


_QUIET = ("/healthz", "/readyz", "/metrics", "/static/")
