"""Liveness, readiness, metrics: for load balancers and monitoring, without a credential."""

from __future__ import annotations

import uuid
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpResponse
from django_prometheus.exports import ExportToDjangoView
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from byteor_cloud.errors import Unavailable


class StatusSerializer(serializers.Serializer[Any]):
    status = serializers.CharField()


class _OpenView(APIView):
    authentication_classes = []
    permission_classes = []
    throttle_classes = []


class HealthView(_OpenView):
    @extend_schema(responses={200: StatusSerializer})
    def get(self, request: Request) -> Response:
        """Returns 200 when the service is alive; touches nothing."""
        return Response({"status": "alive"})


class ReadyView(_OpenView):
    @extend_schema(responses={200: StatusSerializer})
    def get(self, request: Request) -> Response:
        """Returns 200 when the service is ready to accept traffic; 503 names what is not."""
        failed = [name for name, check in CHECKS.items() if not _passes(check)]
        if failed:
            raise Unavailable(f"Not ready: {', '.join(failed)}.", retry_after=5)
        return Response({"status": "ready"})


class MetricsView(_OpenView):
    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        """Prometheus-format metrics."""
        return ExportToDjangoView(request)  # type: ignore[no-any-return]  # untyped library


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _migrations() -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise Unavailable("migrations are missing")


def _storage() -> None:
    name = f"ready/{uuid.uuid4()}"
    default_storage.save(name, ContentFile(b"ready"))
    default_storage.delete(name)


CHECKS = {"database": _database, "migrations": _migrations, "storage": _storage}


def _passes(check: Any) -> bool:
    try:
        check()
    except Exception:  # noqa: BLE001,RUF100  whatever it is, it means not ready
        return False
    return True
