"""The URLs of the product and of two views for comparison: a heartbeat in plain DRF, and a bare view."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.utils import timezone
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.fleet.models import AgentKey, Heartbeat
from apps.tenancy.credentials import credential_digest
from byteor_cloud.server.open_connections import note_caller


class StockAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[Any, AgentKey]:
        text = request.META.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        try:
            key = AgentKey.objects.select_related("agent").get(digest=credential_digest(text), revoked_at=None)
        except AgentKey.DoesNotExist:
            raise AuthenticationFailed from None
        note_caller(request.META, key.digest)
        return key.agent, key


class StockSerializer(serializers.ModelSerializer[Heartbeat]):
    class Meta:
        model = Heartbeat
        fields = ["status", "agent_version", "report"]


class StockHeartbeat(APIView):
    authentication_classes = [StockAuthentication]
    parser_classes = [JSONParser]

    def post(self, request: Request, id: UUID) -> Response:
        key: Any = request.auth
        heartbeat = Heartbeat.objects.get(agent=key.agent)
        serializer = StockSerializer(heartbeat, data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save(last_seen_at=timezone.now())
        return Response(serializer.data)


def bare(request: HttpRequest) -> HttpResponse:
    """Respond ``ok`` as fast as Django can, for a caller whose credential counts as verified."""
    note_caller(request.META, "bench")
    return HttpResponse("ok", content_type="text/plain")


urlpatterns = [
    path("bare", bare),
    path("stock/agents/<uuid:id>/heartbeat", StockHeartbeat.as_view()),
    path("", include("byteor_cloud.urls")),
]
