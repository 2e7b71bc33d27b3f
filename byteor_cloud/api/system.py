"""The views for liveness, readiness and metrics (without a credential), the access log, and the request counters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
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
from drf_spectacular.utils import OpenApiResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from byteor_cloud import __version__
from byteor_cloud.api.declared import DeclaringView
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.readiness import Check, CheckFailed, run_checks
from byteor_cloud.captures import sealing
from byteor_cloud.concurrency.sharing import Shared
from byteor_cloud.errors import Unavailable
from byteor_cloud.server import counters
from byteor_cloud.storage import data_folders, space

logger = structlog.get_logger("byteor.access")
DENIED_STATUSES = (401, 403, 429)
denied = Counter(
    "byteor_denied_requests",
    "Requests that were refused with status 401, 403 or 429.",
    ["status"],
)
heartbeats = Counter("byteor_heartbeats", "Heartbeats that were stored.")
for _status in DENIED_STATUSES:
    denied.labels(str(_status))  # a series that starts at 0 shows its first increase


class HealthSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["alive"])
    descriptions = {
        "status": "The state of the service.",
    }


class SealingSerializer(serializers.Serializer[Any]):
    files = serializers.CharField(allow_null=True)
    network = serializers.CharField()
    programs = serializers.CharField()
    processes = serializers.CharField(allow_null=True)
    memory = serializers.CharField(allow_null=True)
    descriptions = {
        "files": "What blocks access to files that the processes do not need: `landlock`. Null if nothing does.",
        "network": "What blocks network access: `seccomp`, or `audit hook`, which native code can bypass.",
        "programs": "What prevents starting programs: `seccomp`, or `audit hook`, which native code can bypass.",
        "processes": "What blocks access to other processes: `seccomp`. Null if nothing does.",
        "memory": "What limits memory: `rlimit`. Null if nothing does.",
    }


class ReadySerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["ready"])
    version = serializers.CharField()
    sealing = SealingSerializer()
    descriptions = {
        "status": "The state of the service.",
        "version": "The release that this host runs.",
        "sealing": "How this host isolates the processes that read uploads and compile plans.",
    }


class OpenView(DeclaringView, APIView):
    """A view that needs no credential. It never refuses a request because of ``Accept``."""

    http_method_names = ["get", "head"]
    authentication_classes = []
    permission_classes = []
    throttle_classes = []
    # No rate limit applies to probes, because a load balancer must always get a response.
    is_probe: ClassVar[bool] = False

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Choose a renderer, if necessary the first one instead of failing."""
        return super().perform_content_negotiation(request, force=True)


class HealthView(OpenView):
    is_probe = True
    tag = Tag.HEALTH

    @Operation("checkLiveness", None, responses={200: HealthSerializer})
    def get(self, request: Request) -> Response:
        """Check that the process is alive.

        Returns 200 while the process serves requests. This check uses neither the database nor the storage. Use it for
        liveness probes.
        """
        return Response({"status": "alive"})


class ReadyView(OpenView):
    is_probe = True
    tag = Tag.HEALTH
    application_checks: ClassVar[Sequence[Check]] = ()
    """The readiness checks of the apps, which need the database. The root URL configuration sets them."""

    @Operation(
        "checkReadiness",
        None,
        responses={
            200: ReadySerializer,
            503: OpenApiResponse(description="A check failed. `detail` names the failed checks."),
        },
    )
    def get(self, request: Request) -> Response:
        """Check that the service can handle requests.

        Checks the database, its migrations, the master key, the storage, temporary files and the disk space. Returns
        503 with the names of the checks that failed. Use it for readiness probes and load balancers.
        """
        failed = run_checks([*CHECKS, *self.application_checks])
        if "database" in failed:  # leave out the checks that need the database
            unknown = {"migrations", *(check.name for check in self.application_checks)}
            failed = [name for name in failed if name not in unknown]
        if failed:
            raise Unavailable(f"Not ready: {', '.join(failed)}.", retry_after=5)
        return Response({"status": "ready", "version": __version__, "sealing": sealing.in_force()})


class MetricsView(OpenView):
    tag = Tag.HEALTH
    text: ClassVar[Shared[bytes]] = Shared(lambda: generate_latest(counters.registry()))
    """The metrics to show. The root URL configuration sets them, with the metrics of the apps."""

    @Operation("scrapeMetrics", None, responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        """Scrape metrics.

        Returns the metrics of this server's API processes and of the installation in the Prometheus text format. No
        label contains the name of an organization or of a resource that belongs to one.
        """
        return HttpResponse(self.text.get(), content_type=CONTENT_TYPE_LATEST)


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@cache
def _migrations() -> None:
    """Check that all migrations are applied. A success is cached."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise CheckFailed


def _storage() -> None:
    # One name per process, so that interrupted probes of a process leave at most one small file behind.
    name = f"ready/{os.getpid()}"
    default_storage.delete(name)
    default_storage.save(name, ContentFile(b"ready"))
    default_storage.delete(name)


def _disk() -> None:
    if space.is_low():
        raise CheckFailed


CHECKS = [
    Check("database", _database),
    Check("migrations", _migrations),
    Check("storage", _storage),
    Check("temporary files", data_folders.check_writable),
    Check("disk", _disk),
]


def log_request(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Bind the request's id to its log lines, log the request, and count stored heartbeats and denied requests.

    Heartbeats, unchanged polls, probes, scrapes and static files are logged only if they fail.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request.META["HTTP_X_REQUEST_ID"]):
            response = get_response(request)
            status, path = response.status_code, request.path
            count_outcome(path, status)
            if is_logged(path, status):
                write_access_line(request.method or "", path, status, started)
        return response

    return middleware


def count_outcome(path: str, status: int) -> None:
    """Count a heartbeat that was stored, or a request that was denied."""
    if status == 200 and path.endswith("/heartbeat"):
        heartbeats.inc()
    elif status in DENIED_STATUSES:
        denied.labels(str(status)).inc()


def is_logged(path: str, status: int) -> bool:
    """Return whether the request may be logged. Frequent requests and static files are logged only if they fail."""
    if status >= 400:
        return True
    is_poll = status == 304 and path.endswith("/deployment")
    return not (is_poll or path.endswith("/heartbeat") or path.startswith(_QUIET))


def write_access_line(method: str, path: str, status: int, started: float) -> None:
    """Write the request's line in the access log. ``started`` is the ``time.perf_counter`` value at its start."""
    took = round((time.perf_counter() - started) * 1000, 1)
    logger.info("request", method=method, path=path, status=status, ms=took)


class CountRequests(PrometheusAfterMiddleware):  # type: ignore[misc]  # untyped library
    """The metrics of django-prometheus, with only known methods as labels.

    Without this class, a histogram would use the method as the caller sent it, and callers could add unlimited series.
    """

    @override
    def label_metric(self, metric: Any, request: HttpRequest, response: Any = None, **labels: str) -> Any:
        if "method" in labels:
            labels["method"] = self._method(request)
        return super().label_metric(metric, request, response, **labels)


_QUIET = ("/healthz", "/readyz", "/metrics", "/static/")
