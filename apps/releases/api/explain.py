"""Explanations of agents. They are here and not in fleet, because they refer to deployments."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.fleet.api.serializers import AgentSerializer, DesiredStateSerializer, RunningStateSerializer
from apps.fleet.models import Agent
from apps.releases.services import explanations
from apps.tenancy.api.base import EnvironmentViewSet
from apps.tenancy.permissions import Permission as P
from byteor.engine.explain.findings import BecauseCode, NextCode
from byteor_cloud.api.operations import Operation, Tag


class FindingSerializer(serializers.Serializer[Any]):
    """One reason, with the ids of what it is about."""

    code = serializers.ChoiceField(list(BecauseCode))
    detail = serializers.CharField()
    deployment_id = serializers.UUIDField(allow_null=True)
    approval_id = serializers.UUIDField(allow_null=True)
    config_hash = serializers.CharField(allow_null=True)
    descriptions = {
        "code": "A stable code of the reason.",
        "detail": "The reason as a sentence.",
        "deployment_id": "The deployment that the reason is about. Null if it is about no deployment.",
        "approval_id": "The approval that the reason is about. Null if it is about no approval.",
        "config_hash": "The config hash that the reason is about. Null if it is about no configuration.",
    }


class NextEventSerializer(serializers.Serializer[Any]):
    """One coming event, with its time if that is known."""

    code = serializers.ChoiceField(list(NextCode))
    detail = serializers.CharField()
    at = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "code": "A stable code of the event.",
        "detail": "The event as a sentence.",
        "at": "When the event is expected. Null if the time is not known.",
    }


class ExplanationSerializer(serializers.Serializer[Any]):
    """Why an agent runs what it runs, and what happens next. Codes are for programs, sentences for people."""

    agent_id = serializers.UUIDField()
    summary = serializers.CharField()
    running = RunningStateSerializer(allow_null=True)
    desired = DesiredStateSerializer(allow_null=True)
    because = FindingSerializer(many=True)
    next = NextEventSerializer(many=True)
    descriptions = {
        "summary": "The explanation in one sentence.",
        "running": "The bundle that the agent runs. Null if it runs none.",
        "desired": "The bundle that the agent should run. Null if no bundle was offered.",
        "because": "The reasons, with the main reason first.",
        "next": "The next events, with the soonest event first.",
    }


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
