"""Explanations of agents. They are here and not in fleet, because they refer to deployments."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api.serializers import AgentSerializer
from apps.fleet.models import Agent
from apps.releases.api.serializers.explanations import ExplanationSerializer
from apps.releases.services import explanations
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor_cloud.api.operations import Operation, Tag


class ExplanationViewSet(EnvironmentViewSet):
    """The explanation of an agent. Decommissioned agents have one too."""

    tag = Tag.AGENTS
    queryset = Agent.objects.select_related("environment")
    serializer_class = ExplanationSerializer

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.with_state()  # type: ignore[attr-defined,no-any-return]

    @Operation("explainAgent", P.VIEW_ENVIRONMENT, responses=ExplanationSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Explain what an agent runs.

        Says why the agent runs what it runs, and what happens next: the main reason first, and the soonest event first.
        This also works for an agent that has left the fleet.
        """
        agent = self.get_object()
        explanation, states = explanations.explain_agent(agent), AgentSerializer()
        answer = {
            "agent_id": agent.pk,
            "summary": explanation.summary,
            "running": states.get_running(agent),
            "desired": states.get_desired(agent),
            "because": explanation.because,
            "next": explanation.next,
        }
        return Response(self.get_serializer(answer).data)
