"""Serializers of artifacts and their uploads."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.fields import empty

from apps.artifacts.models import Artifact
from apps.artifacts.services.uploads import find_obstacles
from byteor_cloud.api.fields import (
    HashField,
    IdField,
    JSONObjectField,
    ModelSerializer,
    StrictSerializer,
    TimestampField,
)
from byteor_cloud.api.parsers import parse_json
from byteor_cloud.errors import InvalidInput, PayloadTooLarge
from byteor_cloud.worker.dead_letters import Obstacle

MAX_METADATA_BYTES = 64 * 1024


class JSONTextField(JSONObjectField):
    """A JSON object that is sent as the text of a form field."""

    def get_value(self, dictionary: Any) -> Any:
        """Return the text of the form field, or ``empty``. A DictField would look for fields like ``metadata.key``."""
        return dictionary.get(self.field_name, empty)

    def to_internal_value(self, data: Any) -> Any:
        """Return the parsed object. Raises ValidationError."""
        if isinstance(data, str):
            try:
                data = parse_json(data)
            except InvalidInput as refused:
                field = refused.errors[0] if refused.errors else None
                code = field.code if field else "invalid"
                raise serializers.ValidationError(f"Must be a JSON object. {refused.detail}", code=code) from None
        return super().to_internal_value(data)


class MetadataField(JSONTextField):
    """The metadata of an upload: a JSON object of at most 64 KiB."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the parsed object. Raises ValidationError, or PayloadTooLarge before parsing a text over the limit."""
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a JSON object.", code="invalid")
        if len(data.encode("utf-8", "surrogatepass")) > MAX_METADATA_BYTES:
            raise PayloadTooLarge(f"The metadata exceeds {MAX_METADATA_BYTES} bytes.")
        return super().to_internal_value(data)


class UploadSerializer(StrictSerializer):
    """The form fields of an upload."""

    kind = serializers.ChoiceField(Artifact.Kind.values)
    captured_at = TimestampField()
    spec_hash = HashField(required=False)
    deployment_id = IdField(required=False)
    metadata = MetadataField(required=False)
    capture_id = IdField(required=False)
    file = serializers.FileField(allow_empty_file=False)
    descriptions = {
        "kind": "The kind of the artifact.",
        "captured_at": "When the data was captured.",
        "spec_hash": "The spec hash of the pipeline that the agent ran.",
        "deployment_id": "The id of the deployment that the agent ran.",
        "metadata": "A JSON object with more information about the artifact, at most 64 KiB.",
        "capture_id": "The id of the requested capture that this upload is for.",
        "file": "The content of the artifact. At most 64 MiB, unless the installation sets another limit.",
    }


class RejectionSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()
    descriptions = {
        "code": "A stable code for the reason.",
        "detail": "The reason as text.",
    }


class OriginSerializer(serializers.Serializer[Any]):
    artifact_id = serializers.UUIDField()
    records = serializers.ListField(child=serializers.IntegerField(), min_length=2, max_length=2)
    descriptions = {
        "artifact_id": "The id of the original artifact, even if it was deleted.",
        "records": "The positions of the first and the last record that were kept, in the order of a replay.",
    }


class ArtifactSerializer(ModelSerializer):
    reasons = RejectionSerializer(many=True)
    metadata = serializers.DictField()
    origin = OriginSerializer(allow_null=True)

    descriptions = {
        "kind": "The kind of the artifact.",
        "status": "The status of the artifact: `received` until it is checked, then `verified` or `rejected`.",
        "reasons": (
            "Why the artifact was rejected, or why its check cannot continue. Otherwise empty. `check_failed`: the "
            "check failed repeatedly; upload the same file again or retry the job in the console. `check_delayed`: the "
            "check waits until the control plane's database and storage are available."
        ),
        "agent_id": "The id of the agent that uploaded the artifact. If the artifact has an `origin`, this is "
        "the agent of the original artifact.",
        "deployment_id": "The id of the deployment that ran when the data was captured. Null if the agent "
        "reported none, or if the deployment was deleted.",
        "version_id": "The id of the version that produced the incident bundle. Null before the check, for other "
        "kinds, for rejected artifacts, and if no version had the spec hash at the time of the check.",
        "spec_hash": "The spec hash of the pipeline that ran. Null if unknown.",
        "content_hash": "The SHA-256 of the content.",
        "size_bytes": "The size of the content in bytes.",
        "derived_bytes": (
            "The disk space in bytes that the unpacked files and the indexes of an incident bundle use. It is 0 while "
            "the server keeps none of them. They are rebuilt when the capture is read."
        ),
        "captured_at": "When the data was captured.",
        "metadata": "The metadata that the agent sent with the upload. Empty if it sent none.",
        "origin": "The original artifact, of which this artifact contains only some records. Null if an agent uploaded "
        "this artifact.",
    }

    @cached_property
    def _obstacles(self) -> dict[UUID, Obstacle]:
        """The obstacles of the serialized artifacts by id."""
        shown: Any = self.parent.instance if isinstance(self.parent, serializers.ListSerializer) else [self.instance]
        return find_obstacles(shown)

    def to_representation(self, instance: Artifact) -> Any:
        """Return the artifact as JSON data. If the check cannot continue, ``reasons`` contains the obstacle."""
        shown = super().to_representation(instance)
        if (obstacle := self._obstacles.get(instance.pk)) is not None:
            code = "check_failed" if obstacle.is_dead else "check_delayed"
            shown["reasons"] = [{"code": code, "detail": obstacle.sentence}]
        return shown

    class Meta:
        model = Artifact
        fields = [
            "id", "environment_id", "kind", "status", "reasons", "agent_id", "deployment_id", "version_id", "spec_hash",
            "content_hash", "size_bytes", "derived_bytes", "captured_at", "metadata", "origin", "created_at",
        ]  # fmt: skip
