"""Serializers of replays, of requests for them, and of their comparisons and traces."""

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
        "mode": (
            "`dry_run` performs no side effects. `execute` performs the permitted side effects. Defaults to `dry_run`."
        ),
        "journal_lane": (
            "The ingress whose journal is replayed. By default, the journals of all ingresses are replayed together."
        ),
        "last_n": "The number of records to replay from the end of the input. Defaults to all records.",
        "version_id": (
            "The id of the version to replay through. Defaults to the version of `config_bundle_id`, or to the version "
            "that produced the artifact."
        ),
        "config_bundle_id": (
            "The id of the config bundle whose version and stage parameters are used. By default, the parameters are "
            "taken from the artifact, or from its deployment if the artifact has none. If the version has another "
            "spec than the artifact, these parameters are used only for stages with the same id and op. Stages without "
            "parameters then use those of the newest config bundle of the version."
        ),
        "approval": "The credential of an unused approval. Only accepted with the mode `execute`.",
    }


class CancelSerializer(StrictSerializer):
    """The request to cancel a replay."""

    reason = TextField(max_length=2000, required=False, allow_blank=True, default="")
    descriptions = {"reason": "Why the replay is canceled."}


class ReplayProgressSerializer(serializers.Serializer[Any]):
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    descriptions = {
        "done": "The number of processed records. It is 0 while the journals are being read.",
        "total": (
            "The number of records to process. While the journals are being read, it is the number of records read so "
            "far."
        ),
    }


class ReplaySerializer(ModelSerializer):
    progress = ReplayProgressSerializer(allow_null=True)
    result = serializers.DictField(allow_null=True)
    audit = serializers.DictField(allow_null=True)
    warnings = serializers.ListField(child=serializers.CharField())

    descriptions = {
        "status": "The status of the replay.",
        "mode": "Whether side effects are performed (`execute`) or not (`dry_run`).",
        "artifact_id": "The id of the artifact that is replayed.",
        "version_id": "The id of the version through which the records run.",
        "journal_lane": "The ingress whose journal is replayed. Null if all journals are replayed together.",
        "config_bundle_id": (
            "The id of the config bundle in the request. Null if the request named none. The parameters are then those "
            "of the artifact or of its deployment and, for stages that have none there, those of "
            "`fallback_config_bundle_id`."
        ),
        "fallback_config_bundle_id": (
            "The id of the config bundle whose parameters are used for stages that have none in the artifact or its "
            "deployment. It is the newest config bundle of the version at the time of the request. If the replay "
            "repeats an earlier replay, the fallback config bundle of the earlier replay is used again. Null if the "
            "version has the artifact's spec or no config bundle, if the request had a `config_bundle_id`, or if a "
            "bisect requested the replay."
        ),
        "last_n": "The number of records to replay from the end of the input. Null if all records are replayed.",
        "progress": "The progress of the replay. Null unless it is running. Both numbers are 0 for an execute replay.",
        "result": (
            "The number and the digest of each egress's records, the counters of each stage, and the first divergence."
            " Each of the result's `notes` has a `code`, a `name` and a `count`. A note with the code `no_parameters` "
            "is about a stage that lacks the parameters its op needs: `name` is its id, and `count` is the number of "
            "records that the stage let pass unchanged. The `kind` of the divergence is `changed` if members of a JSON"
            " record differ, `bytes` if the records differ, but their JSON values are equal or cannot be compared, "
            "`missing` if only the capture has the record, and `extra` if only the replay has the record. The "
            "divergence's `pointers` are the sorted JSON Pointers of the changed members, with array indices written "
            "as `*`. If there are more than 64 pointers, "
            "or they are long, their common parent replaces them. The list is empty for the other kinds. In results of"
            " earlier releases, `changed` includes `bytes`, and `pointers` is null. "
            "The divergence's `diff` and `pointers` are null for callers without the permission `environment:operate`. "
            "The whole result is null if the replay has not finished or has no result."
        ),
        "audit": (
            "The selected input, the policy, and each side effect with the decision about it. Null if the replay has "
            "not finished or has no result."
        ),
        "warnings": "Problems that did not stop the replay, such as a truncated last record in a journal. Empty "
        "until the replay has finished.",
        "error": (
            "Why the replay failed or was denied: a text, or a code such as `approval.denied`. Null for any other "
            "replay."
        ),
        "error_code": (
            "A stable code for the failure, such as `stage_error` or `cancelled`. Null if the replay did not fail, or "
            "if it could not run because of its approval or the environment's policy."
        ),
        "started_at": "When the replay started. Null until then.",
        "finished_at": "When the replay finished. Null until then.",
    }

    def to_representation(self, instance: Replay) -> Any:
        """Return the replay as JSON data.

        If the caller may not read records, ``diff`` and ``pointers`` of the divergence are null.
        """
        shown = super().to_representation(instance)
        divergence = (shown["result"] or {}).get("divergence")
        if divergence is not None:
            view = self.context.get("view")
            may_read = view is None or Permission.OPERATE_ENVIRONMENT in view.granted_permissions
            hidden = {} if may_read else {"diff": None, "pointers": None}
            shown["result"] = {**shown["result"], "divergence": {"pointers": None, **divergence, **hidden}}
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
        "equal": "Whether all egresses, stages and side effects are equal.",
        "egress": (
            "The number and the digest of each egress's records in both replays. A value is null if the replay does "
            "not have the egress."
        ),
        "stages": "The counters of each stage in both replays. A value is null if the replay does not have the stage.",
        "truncated": (
            "Whether egresses or stages are left out because a response is limited to 4 MiB. Equal ones are left out "
            "first. The `result` of each replay contains all of them."
        ),
        "actions": "Whether the side effects are equal, and how many side effects each replay had.",
        "notes": (
            "The `notes` of both results. A stage with a `no_parameters` note let every record pass, so equal results "
            "do not show that the stage behaves equally."
        ),
        "first_difference": (
            "The first output record that differs, with the `kind` and the `pointers` of its difference as in the "
            "divergence of a replay. Here, `missing` means that only the first replay has the record, and `extra` that "
            "only the second has it. Null if no record differs or the output records were not stored."
        ),
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
        "kind": "Whether the step is at an ingress, stage, lane or egress.",
        "id": "The id of the ingress, stage, lane or egress.",
        "lane": "The lane of the record in this step. The schema permits null, but the value is never null.",
        "json": "The record after this step as JSON. Null if it is incomplete or not valid JSON, if the server refuses "
        "the JSON, for example because of duplicate keys, or if a stage dropped the record or failed.",
        "payload_base64": (
            "The record after this step in Base64, at most its first 64 KiB. Null if a stage dropped the record or "
            "failed."
        ),
        "truncated": "Whether only the first 64 KiB of the record are returned.",
        "dropped": "Why the record was dropped or stopped at this step. Null if it was not.",
        "actions": "The side effects of the record in this step. A trace lists them without performing them.",
    }


class TracedRecordSerializer(serializers.Serializer[Any]):
    ingress = serializers.CharField()
    position = serializers.IntegerField()
    steps = TracedStepSerializer(many=True)
    egress = serializers.ListField(child=serializers.CharField())
    descriptions = {
        "ingress": "The ingress of the record.",
        "position": "The position of the record in its journal, in sequence order.",
        "steps": "The steps of the record that are on this page, in order.",
        "egress": "The egresses that the record reached. Empty if it reached none, or if a stage error or a limit "
        "stopped the trace of the record.",
    }


class TraceSerializer(serializers.Serializer[Any]):
    records = TracedRecordSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.IntegerField(allow_null=True)
    descriptions = {
        "records": "The records with the requested `sequence` that have steps on this page. Of each journal, at most "
        "16 such records are traced.",
        "truncated": "Whether more steps follow on the next page. A page is limited to 4 MiB.",
        "next_after": (
            "The value of `after` for the next page: the number of the last step on this page. The steps of all "
            "records are numbered together, starting at 0. Null if `truncated` is false."
        ),
    }
