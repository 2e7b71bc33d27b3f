"""Serializers of bisects."""

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
                        "description": "The id of a replay. A version is bad if its output differs from the output of "
                        "this replay.",
                    }
                },
                "required": ["output_differs_from"],
                "additionalProperties": False,
            },
        ]
    }
)
class PredicateField(serializers.Field[Any, Any, Any, Any]):
    """The predicate of a bisect: the condition under which a version is bad."""

    def to_internal_value(self, data: Any) -> str | UUID:
        """Return ``diverges``, ``fails``, or the id of the replay to compare with. Raises ValidationError."""
        if isinstance(data, str) and data in {Predicate.DIVERGES, Predicate.FAILS}:
            return data
        if isinstance(data, dict) and data.keys() == {"output_differs_from"}:
            try:
                found: UUID = IdField().to_internal_value(data["output_differs_from"])
            except serializers.ValidationError as error:
                raise serializers.ValidationError({"output_differs_from": error.detail}) from None
            return found
        raise serializers.ValidationError('Must be "diverges", "fails" or {"output_differs_from": REPLAY_ID}.')

    def to_representation(self, value: Any) -> Any:
        """Return the predicate as it is stored, which is the form that requests use."""
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
            "The condition under which a version is bad. `diverges`: its output differs from the capture's expected "
            "output, or a stage fails and the recording does not contain this failure. `fails`: a stage fails. "
            "`output_differs_from`: its output differs from that of another replay."
        ),
        "pipeline": "The name of the pipeline. Defaults to the pipeline of the version that produced the artifact.",
        "good": "The id of the version at which the search starts. Defaults to the oldest version.",
        "bad": "The id of the version at which the search stops. Defaults to the newest version.",
        "exhaustive": "Whether to replay all versions from `good` to `bad`, at most 256. `monotone` is determined only "
        "in this case.",
    }


class BisectedVersionSerializer(serializers.Serializer[Any]):
    version_id = serializers.UUIDField()
    number = serializers.IntegerField()
    verdict = serializers.ChoiceField([each.value for each in Verdict], allow_null=True)
    replay_id = serializers.UUIDField(allow_null=True)
    no_parameters = serializers.ListField(child=serializers.CharField(), default=list)
    descriptions = {
        "version_id": "The id of the version.",
        "number": "The number of the version.",
        "verdict": (
            "The verdict on the version. `untestable`: its replay failed for a reason other than a stage error. Null "
            "if there is none, for example because the version was not replayed."
        ),
        "replay_id": "The id of the replay through the version. Null if there is none.",
        "no_parameters": (
            "The ids of the first ten stages that let every record pass because they have no parameters. Empty until "
            "there is a verdict. The `notes` of the replay's result list all such stages."
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
        "artifact_id": "The id of the artifact that is replayed.",
        "predicate": "The condition under which a version is bad.",
        "exhaustive": "Whether all `versions` are replayed.",
        "outcome": (
            "The outcome of the search. `found`: the first bad version is known. `no_change`: the oldest and newest "
            "tested versions have the same verdict, and no first bad version was found. `inverted`: the oldest tested "
            "version is bad and the newest is good. `inconclusive`: too few versions could be tested to find the first "
            "bad version. Null until the bisect has succeeded."
        ),
        "versions": "The versions from oldest to newest, with the verdicts so far.",
        "first_bad": (
            "The id of the first version that is known to be bad after a good version. Null until the bisect has "
            "succeeded. Also null if the outcome is `no_change` or `inverted`, or if an `inconclusive` search found no "
            "such version."
        ),
        "last_good": "The id of the last version before `first_bad` that is known to be good. Null if `first_bad` is "
        "null.",
        "diff": "The changes from the last good to the first bad version. Null unless both are known.",
        "monotone": (
            "Whether no good version follows a bad version. Null unless the bisect is exhaustive, has succeeded and "
            "could test at least two versions."
        ),
        "error": "Why the bisect has no outcome. Null unless it failed or was canceled.",
        "finished_at": "When the bisect finished. Null until then.",
    }

    class Meta:
        model = Bisect
        fields = [
            "id", "environment_id", "status", "artifact_id", "predicate", "exhaustive", "outcome", "versions",
            "first_bad", "last_good", "diff", "monotone", "error", "requested_by", "finished_at", "created_at",
        ]  # fmt: skip
