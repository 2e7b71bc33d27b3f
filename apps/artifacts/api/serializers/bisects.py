"""Bisects."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.artifacts.models import Bisect
from apps.pipelines.api.serializers import DiffSerializer
from apps.pipelines.models import Version
from byteor.engine.replay import BisectOutcome, Predicate, Verdict
from byteor_cloud.api.fields import EnvironmentRelatedField, IdField, ModelSerializer, NameField, StrictSerializer


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "enum": ["diverges", "fails"]},
            {
                "type": "object",
                "properties": {
                    "output_differs_from": {
                        "type": "string",
                        "format": "uuid",
                        "description": "The replay from whose output a bad version's output differs.",
                    }
                },
                "required": ["output_differs_from"],
                "additionalProperties": False,
            },
        ]
    }
)
class PredicateField(serializers.Field[Any, Any, Any, Any]):
    """What makes a version bad."""

    def to_internal_value(self, data: Any) -> str | UUID:
        """Return the name of the predicate, or the id of the replay to compare with. Raises ValidationError."""
        if isinstance(data, str) and data in {Predicate.DIVERGES, Predicate.FAILS}:
            return data
        if isinstance(data, dict) and data.keys() == {"output_differs_from"}:
            try:
                found: UUID = IdField().to_internal_value(data["output_differs_from"])
            except serializers.ValidationError as error:
                raise serializers.ValidationError({"output_differs_from": error.detail}) from None
            return found
        raise serializers.ValidationError('Must be "diverges", "fails" or {"output_differs_from": a replay\'s id}.')

    def to_representation(self, value: Any) -> Any:
        """Return the stored form."""
        return value


class BisectArtifactSerializer(StrictSerializer):
    """The request to bisect an artifact."""

    predicate = PredicateField()
    pipeline = NameField(required=False)
    good = EnvironmentRelatedField(queryset=Version.objects.all(), what="version", required=False)
    bad = EnvironmentRelatedField(queryset=Version.objects.all(), what="version", required=False)
    exhaustive = serializers.BooleanField(required=False, default=False)
    descriptions = {
        "predicate": (
            "What makes a version bad: its output `diverges` from the expected one, a stage `fails`, or its output "
            "differs from that of a replay."
        ),
        "pipeline": "The name of the pipeline. Default: that of the version that produced the artifact.",
        "good": "The version with which the search begins. Default: the first.",
        "bad": "The version with which the search ends. Default: the last.",
        "exhaustive": "Replay all versions, at most 256, to find out whether the history is monotone.",
    }


class BisectedVersionSerializer(serializers.Serializer[Any]):
    version_id = serializers.UUIDField()
    number = serializers.IntegerField()
    verdict = serializers.ChoiceField([each.value for each in Verdict], allow_null=True)
    replay_id = serializers.UUIDField(allow_null=True)
    no_parameters = serializers.ListField(child=serializers.CharField(), default=list)
    descriptions = {
        "version_id": "The version.",
        "number": "The number of the version.",
        "verdict": "What the replay showed. Null if the version was not replayed, or not yet.",
        "replay_id": "The replay of the version. Null if there is none.",
        "no_parameters": (
            "The first ten stages that let every record pass because the capture has no parameters for them. The "
            "`notes` of the replay's result name all."
        ),
    }


class BisectSerializer(ModelSerializer):
    predicate = PredicateField()
    versions = BisectedVersionSerializer(many=True)
    outcome = serializers.ChoiceField([each.value for each in BisectOutcome], allow_null=True)
    first_bad = serializers.UUIDField(source="first_bad_id", allow_null=True)
    last_good = serializers.UUIDField(source="last_good_id", allow_null=True)
    diff = DiffSerializer(allow_null=True)
    monotone = serializers.BooleanField(allow_null=True)
    descriptions = {
        "status": "The status of the bisect.",
        "artifact_id": "The artifact that is replayed.",
        "predicate": "What makes a version bad.",
        "exhaustive": "Whether all versions are replayed.",
        "outcome": "What was found. Null until the bisect has ended.",
        "versions": "The versions in their order, with the verdicts so far.",
        "first_bad": "The first bad version. Null if there is none.",
        "last_good": "The last good version before it. Null if there is none.",
        "diff": "The changes from the last good to the first bad version.",
        "monotone": "Whether no good version follows a bad one. Null unless all versions were replayed.",
        "error": "Why the bisect ended without an outcome.",
        "finished_at": "When the bisect ended. Null until it has ended.",
    }

    class Meta:
        model = Bisect
        fields = [
            "id", "environment_id", "status", "artifact_id", "predicate", "exhaustive", "outcome", "versions",
            "first_bad", "last_good", "diff", "monotone", "error", "requested_by", "finished_at", "created_at",
        ]  # fmt: skip
