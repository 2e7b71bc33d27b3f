"""Replays: their request, result, comparison and traces."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.artifacts.api.serializers.captures import AnyJSONField
from apps.artifacts.models import Replay
from apps.pipelines.models import Version
from apps.releases.models import ConfigBundle
from apps.tenancy.permissions import Permission
from byteor_cloud.api.fields import EnvironmentRelatedField, ModelSerializer, StrictSerializer, TextField


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
        """Return the replay, without the bytes of a divergence if the caller may not read captured records."""
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


class ComparisonSerializer(serializers.Serializer[Any]):
    equal = serializers.BooleanField()
    egress = serializers.DictField()
    stages = serializers.DictField()
    truncated = serializers.BooleanField()
    actions = serializers.DictField()
    notes = serializers.ListField(child=serializers.ListField(child=serializers.DictField()))
    first_difference = serializers.DictField(allow_null=True)
    descriptions = {
        "equal": "Whether egresses, stages and side effects are equal.",
        "egress": "Records and digest of each egress in both replays. Null for a replay without the egress.",
        "stages": "The counters of each stage in both replays. Null for a replay without the stage.",
        "truncated": "Whether parts are left out because a response has at most 4 MiB: first those that are equal. The "
        "`result` of each replay has all of them.",
        "actions": "Whether the side effects are equal, and how many there were.",
        "notes": "The `notes` of both results. Stages named by `no_parameters` let every record pass, so that equal "
        "results say nothing about them.",
        "first_difference": "The first output that differs. Null if none does, or the outputs were not kept.",
    }


class TracedStepSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["ingress", "stage", "lane", "egress"])
    id = serializers.CharField()
    lane = serializers.CharField(allow_null=True)
    json = AnyJSONField()
    payload_base64 = serializers.CharField(allow_null=True)
    truncated = serializers.BooleanField()
    dropped = serializers.CharField(allow_null=True)
    actions = serializers.ListField(child=serializers.DictField())
    descriptions = {
        "kind": "What the record passed.",
        "id": "The name of what the record passed.",
        "lane": "The lane that the record was on.",
        "json": "What the record was after this step, if it is JSON.",
        "payload_base64": "The bytes of the record after this step, at most 64 KiB. Null if it was dropped.",
        "truncated": "Whether the payload is cut.",
        "dropped": "Why the record went no further. Null if it did.",
        "actions": "The side effects that the record reached in this step.",
    }


class TracedRecordSerializer(serializers.Serializer[Any]):
    ingress = serializers.CharField()
    position = serializers.IntegerField()
    steps = TracedStepSerializer(many=True)
    egress = serializers.ListField(child=serializers.CharField())
    descriptions = {
        "ingress": "The ingress of the record.",
        "position": "The position of the record in its journal.",
        "steps": "What the record became, step by step.",
        "egress": "The egresses that the record reached.",
    }


class TraceSerializer(serializers.Serializer[Any]):
    records = TracedRecordSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.IntegerField(allow_null=True)
    descriptions = {
        "records": "Each record with this sequence that has steps on this page.",
        "truncated": "Whether there are more steps, because a response has at most 4 MiB.",
        "next_after": "The value of `after` that continues the trace: the number of the last step of this page. The "
        "steps of all records are counted from 0. Null if `truncated` is false.",
    }
