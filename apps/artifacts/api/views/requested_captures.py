"""Views that request captures from agents and show the requests, and the view that tells an agent what to capture."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.artifacts.api import commands as c
from apps.artifacts.api.serializers.requested_captures import (
    PendingCaptureAnswerSerializer,
    RequestedCaptureSerializer,
)
from apps.artifacts.models import RequestedCapture
from apps.artifacts.services import requested_captures
from apps.fleet.api.base import AgentSelfViewSet
from apps.fleet.models import Agent
from apps.tenancy.api.base import SIGNED_IN, EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.machines import CaptureStatus
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import ListModelMixin, RetrieveMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter
from byteor_cloud.errors import NotFound


class CaptureRequestViewSet(EnvironmentViewSet):
    """Requests for captures. They are in this app, not in fleet, because they refer to artifacts."""

    tag = Tag.AGENTS
    queryset = Agent.objects.enrolled().select_related("environment__project")
    serializer_class = RequestedCaptureSerializer
    commands = (c.capture,)


class RequestedCaptureViewSet(ListModelMixin, RetrieveMixin, EnvironmentViewSet):
    """The captures that were requested from one agent. The agent may be decommissioned."""

    tag = Tag.AGENTS
    queryset = RequestedCapture.objects.all()
    serializer_class = RequestedCaptureSerializer
    lookup_url_kwarg = "capture_id"
    filters = {**BY_CREATION, "status": choice_parameter(CaptureStatus, "status")}
    operations = {
        "list": Operation(
            "listRequestedCaptures",
            P.VIEW_ENVIRONMENT,
            "List requested captures",
            "Returns the captures that were requested from the agent in the last 90 days, newest first. Also works for "
            "a decommissioned agent.",
        ),
        "retrieve": Operation(
            "getRequestedCapture",
            P.VIEW_ENVIRONMENT,
            "Get a requested capture",
            "Returns a capture that was requested from the agent. Its `status` and `artifact_id` show whether the "
            "agent has uploaded it.",
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        agent = Agent.objects.filter(pk=self.kwargs["id"], environment=self.environment)
        if not agent.exists():
            raise NotFound("This environment has no such agent.")
        return queryset.filter(agent=self.kwargs["id"])


class PendingCaptureViewSet(AgentSelfViewSet):
    """The oldest pending capture request of the calling agent."""

    tag = Tag.AGENTS
    queryset = RequestedCapture.objects.none()
    serializer_class = PendingCaptureAnswerSerializer
    agent_scope = "agent:artifact_upload"

    @Operation("getPendingCapture", SIGNED_IN, responses=PendingCaptureAnswerSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Get the capture that is requested from the agent.

        Called by an agent with its own key when the response to a heartbeat contains the command `capture`. Returns the
        oldest request that is neither uploaded nor expired. Capture the running pipeline, with at most the last
        `last_n` records of each journal. Upload the capture with `uploadArtifact`, with the request's `id` as
        `capture_id` and the reason in `metadata`. If there is nothing to capture, upload a `diagnostic` that says why.
        Call this operation before each attempt, because it stops returning a request once an upload for it is stored.
        """
        pending = requested_captures.find_pending(self.agent)
        return Response(self.get_serializer({"capture": pending}).data)
