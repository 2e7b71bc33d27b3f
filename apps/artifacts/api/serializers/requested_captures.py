"""Serializers of requested captures."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.artifacts.models import RequestedCapture
from byteor_cloud.api.fields import ModelSerializer, StrictSerializer, TextField

MAX_REASON = 500
MAX_LAST_N = 2_000_000_000
_LAST_N = "The number of records to capture from the end of each journal. "


class RequestCaptureSerializer(StrictSerializer):
    """The request for a capture."""

    reason = TextField(max_length=MAX_REASON)
    last_n = serializers.IntegerField(required=False, min_value=1, max_value=MAX_LAST_N)
    descriptions = {
        "reason": "Why the capture is needed. The agent gets the reason and uploads it as metadata of the artifact.",
        "last_n": f"{_LAST_N}Defaults to all records that the agent has.",
    }


class RequestedCaptureSerializer(ModelSerializer):
    descriptions = {
        "agent_id": "The id of the agent that should upload the capture.",
        "status": (
            "The status of the request. `requested`: the agent has not uploaded the capture yet. `uploaded`: the agent "
            "has uploaded it. `expired`: the agent did not upload it within an hour."
        ),
        "reason": "Why the capture is needed.",
        "last_n": f"{_LAST_N}Null for all records.",
        "artifact_id": (
            "The id of the uploaded artifact, even if it was uploaded after the request had expired. Null before the "
            "upload, and after the artifact was deleted. The artifact's `kind` is normally `incident_bundle`. It is "
            "`diagnostic` if the agent could not upload a capture. The field `problem` in the diagnostic's metadata "
            "then states the cause."
        ),
        "expires_at": "When the request expires, an hour after it was created.",
        "uploaded_at": "When the artifact was uploaded. Null before the upload.",
    }

    class Meta:
        model = RequestedCapture
        fields = [
            "id", "environment_id", "agent_id", "status", "reason", "last_n", "artifact_id", "requested_by",
            "expires_at", "uploaded_at", "created_at",
        ]  # fmt: skip


class PendingCaptureSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    reason = serializers.CharField()
    last_n = serializers.IntegerField(allow_null=True)
    expires_at = serializers.DateTimeField()
    descriptions = {
        "id": "The id of the request. Send it as `capture_id` with the upload.",
        "reason": "Why the capture is needed.",
        "last_n": f"{_LAST_N}Null for all records.",
        "expires_at": "When the request expires.",
    }


class PendingCaptureAnswerSerializer(serializers.Serializer[Any]):
    capture = PendingCaptureSerializer(allow_null=True)
    descriptions = {
        "capture": "The oldest request that is neither uploaded nor expired. Null if there is none.",
    }
