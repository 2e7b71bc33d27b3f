"""The serializer of requests for rollbacks."""

from __future__ import annotations

from rest_framework import serializers

from apps.artifacts.models import Artifact
from apps.releases.api.serializers.deployments import ReasonSerializer
from byteor_cloud.api.fields import EnvironmentRelatedField


class RollBackSerializer(ReasonSerializer):
    """The request to roll back a deployment."""

    artifact_id = EnvironmentRelatedField(
        source="artifact",
        queryset=Artifact.objects.select_related("version", "deployment__config_bundle"),
        what="artifact",
        required=False,
    )
    proceed = serializers.BooleanField(required=False)
    descriptions = {
        "artifact_id": (
            "The id of a verified incident bundle of the same pipeline. The rollback starts only after a dry run of "
            "this capture has succeeded on each configuration that the rollback would restore. By default, no proof is "
            "needed."
        ),
        "proceed": (
            "Whether to roll back immediately, without the proof that `artifact_id` requires. Has no effect without "
            "`artifact_id`. Defaults to false."
        ),
    }
