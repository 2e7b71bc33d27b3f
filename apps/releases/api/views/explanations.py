"""Explanations of agents. They are in this app, not in fleet, because they refer to deployments."""

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
    """The explanation of an agent, which may be decommissioned."""

    tag = Tag.AGENTS
    queryset = Agent.objects.select_related("environment")
    serializer_class = ExplanationSerializer

    def narrow(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.with_state()  # type: ignore[attr-defined,no-any-return]  # it is a query set of agents

    @Operation("explainAgent", P.VIEW_ENVIRONMENT, responses=ExplanationSerializer)
    def retrieve(self, request: Request, **kwargs: Any) -> Response:
        """Explain what an agent runs.

        Returns the reasons why the agent runs what it runs, with the main reason first, and the events that come next,
        with the soonest first. The agent may be decommissioned.
        """
        agent = self.get_object()
        explanation, states = explanations.explain_agent(agent), AgentSerializer()
        document = {
            "agent_id": agent.pk,
            "summary": explanation.summary,
            "running": states.get_running(agent),
            "desired": states.get_desired(agent),
            "because": explanation.because,
            "next": explanation.next,
        }
        return Response(self.get_serializer(document).data)
