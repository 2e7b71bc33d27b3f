"""Serializers of artifacts, uploads and replays."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty

from apps.artifacts.models import Artifact, Bisect, Replay
from apps.artifacts.services.uploads import find_obstacles
from apps.pipelines.api.serializers import DiffSerializer
from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle
from apps.tenancy.permissions import Permission
from byteor.engine.replay import BisectOutcome, Predicate, Verdict
from byteor_cloud.api.fields import (
    EnvironmentRelatedField,
    HashField,
    IdField,
    JSONObjectField,
    ModelSerializer,
    NameField,
    StrictSerializer,
    TextField,
    TimestampField,
)
from byteor_cloud.api.parsers import parse_json
from byteor_cloud.errors import InvalidInput, PayloadTooLarge
from byteor_cloud.worker.dead_letters import Obstacle

MAX_METADATA_BYTES = 64 * 1024


class JSONTextField(JSONObjectField):
    """A JSON object that is sent as text in a form field."""

    def get_value(self, dictionary: Any) -> Any:
        """Return the text of the form field. A DictField would look for fields named ``metadata[key]``."""
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
        """Return the parsed object. Raises PayloadTooLarge before it parses a long text, or ValidationError."""
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a JSON object.", code="invalid")
        if len(data.encode("utf-8", "surrogatepass")) > MAX_METADATA_BYTES:
            raise PayloadTooLarge(f"The metadata is over {MAX_METADATA_BYTES} bytes.")
        return super().to_internal_value(data)


class UploadSerializer(StrictSerializer):
    """The form fields of an upload."""

    kind = serializers.ChoiceField(Artifact.Kind.values)
    captured_at = TimestampField()
    spec_hash = HashField(required=False)
    deployment_id = IdField(required=False)
    metadata = MetadataField(required=False)
    file = serializers.FileField(allow_empty_file=False)
    descriptions = {
        "kind": "The kind of data that was captured.",
        "captured_at": "When the data was captured.",
        "spec_hash": "The spec hash of the pipeline that the agent ran.",
        "deployment_id": "The deployment that the agent ran.",
        "metadata": "A JSON object with more information about the capture, at most 64 KiB.",
        "file": "The content of the artifact, at most 64 MiB.",
    }


class RejectionSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()
    descriptions = {
        "code": "A stable code of the reason.",
        "detail": "What is wrong with the artifact.",
    }


class ArtifactSerializer(ModelSerializer):
    reasons = RejectionSerializer(many=True)
    metadata = serializers.DictField()

    descriptions = {
        "kind": "The kind of data that was captured.",
        "status": "Whether the artifact was checked, and the result of the check.",
        "reasons": (
            "Why the artifact was rejected, or why its check cannot continue: `check_failed` (it is repeated when the "
            "same file is uploaded again, and can be retried in the console) or `check_delayed` (it waits until the "
            "control plane's database and storage are available). Otherwise empty."
        ),
        "agent_id": "The agent that uploaded the artifact.",
        "deployment_id": "The deployment that ran when the data was captured. Null if unknown.",
        "version_id": "The version that ran when the data was captured. Null if unknown.",
        "spec_hash": "The spec hash of the pipeline that ran. Null if unknown.",
        "content_hash": "The SHA-256 of the content.",
        "size_bytes": "The size of the content in bytes.",
        "derived_bytes": (
            "The disk space of the unpacked files and indexes of an incident bundle. It is 0 while the server keeps "
            "none; they are made again when somebody reads the capture."
        ),
        "captured_at": "When the data was captured.",
        "metadata": "The information that the agent sent about the capture.",
    }

    @cached_property
    def _obstacles(self) -> dict[UUID, Obstacle]:
        """The obstacles of all artifacts that are represented, which one query finds."""
        shown: Any = self.parent.instance if isinstance(self.parent, serializers.ListSerializer) else [self.instance]
        return find_obstacles(shown)

    def to_representation(self, instance: Artifact) -> Any:
        """Return the artifact. While its check cannot continue, the reason for that is its only reason."""
        shown = super().to_representation(instance)
        if (obstacle := self._obstacles.get(instance.pk)) is not None:
            code = "check_failed" if obstacle.is_dead else "check_delayed"
            shown["reasons"] = [{"code": code, "detail": obstacle.sentence}]
        return shown

    class Meta:
        model = Artifact
        fields = [
            "id", "environment_id", "kind", "status", "reasons", "agent_id", "deployment_id", "version_id", "spec_hash",
            "content_hash", "size_bytes", "derived_bytes", "captured_at", "metadata", "created_at",
        ]  # fmt: skip


class ReplayArtifactSerializer(StrictSerializer):
    """The request to replay an artifact."""

    mode = serializers.ChoiceField(Replay.Mode.values, required=False)
    journal_lane = TextField(pattern="^[a-z][a-z0-9_-]{0,62}$", rule="Must be the name of a lane.", required=False)
    last_n = serializers.IntegerField(required=False, min_value=1, max_value=2_000_000_000)
    version_id = EnvironmentRelatedField(
        source="version", queryset=Version.objects.all(), what="version", required=False
    )
    config_bundle_id = EnvironmentRelatedField(
        source="config_bundle",
        queryset=ConfigBundle.objects.select_related("version"),
        what="config bundle",
        required=False,
    )
    approval = TextField(source="credential", max_length=16 * 1024, required=False)
    descriptions = {
        "mode": "`dry_run` (default) performs no side effect; `execute` performs the side effects that are permitted.",
        "journal_lane": (
            "The ingress whose journal is replayed. Default: all ingresses that have a journal, together."
        ),
        "last_n": "How many of the last records to replay. Default: all records.",
        "version_id": "The version to replay through, instead of the version that produced the artifact.",
        "config_bundle_id": (
            "The config bundle whose stage parameters are used, with its version. Default: the parameters in the "
            "artifact, else those of its deployment, else none. With another `version_id` than the artifact's, these "
            "are used for stages of equal id and op, and those of the version's newest config bundle for the others."
        ),
        "approval": "The credential of an unused approval. Only with `execute`.",
    }


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


class CancelSerializer(StrictSerializer):
    """The request to cancel a replay."""

    reason = TextField(max_length=2000, required=False, allow_blank=True, default="")
    descriptions = {"reason": "Why the replay is no longer wanted."}


class ReplayProgressSerializer(serializers.Serializer[Any]):
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    descriptions = {
        "done": "How many records are done. 0 while the journals are still read.",
        "total": "How many records are replayed, as far as known.",
    }


class ReplaySerializer(ModelSerializer):
    progress = ReplayProgressSerializer(allow_null=True)
    result = serializers.DictField(allow_null=True)
    audit = serializers.DictField(allow_null=True)
    warnings = serializers.ListField(child=serializers.CharField())

    descriptions = {
        "status": "The status of the replay.",
        "mode": "Whether side effects are performed.",
        "artifact_id": "The artifact that is replayed.",
        "version_id": "The version that the records run through. Null until it is known.",
        "journal_lane": "The ingress whose journal is replayed. Null if all that have a journal are replayed together.",
        "config_bundle_id": (
            "The config bundle that the request named. Null if the parameters are the artifact's or its deployment's."
        ),
        "fallback_config_bundle_id": (
            "The config bundle whose parameters are used for stages without parameters in the artifact or its "
            "deployment: the newest one of `version_id` when the replay was requested. Null for the artifact's own "
            "version, with `config_bundle_id`, and if the version had no config bundle."
        ),
        "last_n": "How many of the last records are replayed. Null if all are replayed.",
        "progress": "How far the replay is. Null unless it is running.",
        "result": (
            "The result: records and digests of each egress, counters of each stage, and the first divergence. Each of "
            "its `notes` has a `code`, a `name` and a `count`. The code `no_parameters` names a stage whose op needs "
            "parameters and has none, and counts the records that reached it: it let all of them pass unchanged. Null "
            "until the replay has ended."
        ),
        "audit": (
            "Which records were selected, and each side effect with the decision about it. Null until the replay has "
            "ended."
        ),
        "warnings": "Problems of the journal that did not stop the replay, such as a cut-off last record.",
        "error": "Why the replay failed, as a sentence. Empty if it did not fail.",
        "error_code": "Why the replay failed, as a stable code. Empty if it did not fail.",
        "started_at": "When the replay started. Null until it has started.",
        "finished_at": "When the replay ended. Null until it has ended.",
    }

    def to_representation(self, instance: Replay) -> Any:
        """Return the replay; whoever may not see captured records does not see the bytes of a divergence."""
        shown = super().to_representation(instance)
        view = self.context.get("view")
        if view is not None and Permission.OPERATE_ENVIRONMENT not in view.granted_permissions:
            divergence = (shown["result"] or {}).get("divergence")
            if divergence is not None:
                shown["result"] = {**shown["result"], "divergence": {**divergence, "diff": None}}
        return shown

    class Meta:
        model = Replay
        fields = [
            "id", "environment_id", "status", "mode", "artifact_id", "version_id", "config_bundle_id",
            "fallback_config_bundle_id", "journal_lane", "last_n", "approval_id", "progress", "result", "audit",
            "warnings", "error", "error_code", "requested_by", "started_at", "finished_at", "created_at",
        ]  # fmt: skip
