"""Serializers of the explanations of agents."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.fleet.api.serializers import DesiredStateSerializer, RunningStateSerializer
from byteor.engine.explain.findings import BecauseCode, NextCode


class FindingSerializer(serializers.Serializer[Any]):
    """One reason of an explanation, with the ids of the resources that the reason is about."""

    code = serializers.ChoiceField(list(BecauseCode))
    detail = serializers.CharField()
    deployment_id = serializers.UUIDField(allow_null=True)
    approval_id = serializers.UUIDField(allow_null=True)
    config_hash = serializers.CharField(allow_null=True)
    descriptions = {
        "code": "A stable code for the reason.",
        "detail": "The reason as a sentence.",
        "deployment_id": "The id of the deployment that the reason is about. Null if it is not about a deployment.",
        "approval_id": "The id of the approval that the reason is about. Null if it is not about an approval.",
        "config_hash": "The config hash that the reason is about. Null if it is not about a configuration.",
    }


class NextEventSerializer(serializers.Serializer[Any]):
    """One expected event, with its time if that is known."""

    code = serializers.ChoiceField(list(NextCode))
    detail = serializers.CharField()
    at = serializers.DateTimeField(allow_null=True)
    descriptions = {
        "code": "A stable code for the event.",
        "detail": "The event as a sentence.",
        "at": "When the event is expected. Null if the time is not known.",
    }


class ExplanationSerializer(serializers.Serializer[Any]):
    """Why an agent runs what it runs, and what happens next. The codes are for programs, the sentences for people."""

    agent_id = serializers.UUIDField()
    summary = serializers.CharField()
    running = RunningStateSerializer(allow_null=True)
    desired = DesiredStateSerializer(allow_null=True)
    because = FindingSerializer(many=True)
    next = NextEventSerializer(many=True)
    descriptions = {
        "summary": "A short summary of the explanation.",
        "running": "The bundle that the agent runs, according to its last heartbeat. Null if it runs none, or before "
        "the first heartbeat.",
        "desired": "The bundle that the agent should run. Null if the agent has no offer.",
        "because": "The reasons, with the main reason first.",
        "next": "The expected events, with the soonest first and those without a known time last.",
    }
