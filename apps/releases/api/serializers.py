"""How bundles, deployments and approvals look in the API."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from apps.fleet.api.serializers import OfferSerializer
from apps.pipelines.models import Version
from apps.releases.api.fields import BreakGlassSerializer, StoredForm, StrategySerializer, TargetSerializer
from apps.releases.models import (
    Approval,
    ApprovalDecision,
    ConfigBundle,
    Deployment,
    DeploymentAgent,
    TimelineEntry,
)
from apps.releases.services.bundles import ADAPTER_KINDS, WAIT_BY_PROFILE
from apps.tenancy.api.fields import EnvironmentRelatedField, Hash, Id, JSONObject, ModelSerializer, Name, Strict, Text
from apps.tenancy.permissions import Permission
from byteor_cloud.engine.machines import AgentProgress
from byteor_cloud.engine.rollout import Strategy

_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


@extend_schema_field(
    {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"type": "string", "enum": list(ADAPTER_KINDS)}},
        "additionalProperties": {},
    }
)
class Adapter(JSONObject):
    """One adapter: ``kind`` and whatever that kind takes."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Checked for its kind. Raises ValidationError."""
        value: dict[str, Any] = super().to_internal_value(data)
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in ADAPTER_KINDS:
            raise serializers.ValidationError(
                {"kind": [serializers.ErrorDetail(f"One of {', '.join(ADAPTER_KINDS)}.", code="invalid_choice")]}
            )
        return value


class AdaptersSerializer(Strict):
    ingress = Adapter(required=False)
    egress = Adapter(required=False)


@extend_schema_field(
    {
        "type": "object",
        "propertyNames": {"pattern": f"^{_ENV_NAME.pattern}$"},
        "additionalProperties": {
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "required": ["secret_ref"],
                    "properties": {"secret_ref": {"type": "string", "pattern": f"^{_ENV_NAME.pattern}$"}},
                    "additionalProperties": False,
                },
            ]
        },
    }
)
class EnvVars(serializers.DictField):
    """Environment variables: a string, or ``{"secret_ref": NAME}`` which the node resolves."""

    child = serializers.JSONField()

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Names in upper case, values of the two kinds. Raises ValidationError."""
        value: dict[str, Any] = super().to_internal_value(data)
        errors: dict[str, str] = {}
        for name, item in value.items():
            if not _ENV_NAME.fullmatch(name):
                errors[name] = "A name has upper-case letters, digits and _."
            elif isinstance(item, dict):
                reference = item.get("secret_ref")
                if set(item) != {"secret_ref"} or not (isinstance(reference, str) and _ENV_NAME.fullmatch(reference)):
                    errors[name] = 'Must be a string or {"secret_ref": "NAME"}.'
            elif not isinstance(item, str):
                errors[name] = 'Must be a string or {"secret_ref": "NAME"}.'
        if errors:
            raise serializers.ValidationError(errors)
        return value


class SnapshotSerializer(Strict):
    enabled = serializers.BooleanField(default=False)
    interval_s = serializers.IntegerField(required=False, min_value=1, max_value=86400)


class ConfigBundleSerializer(ModelSerializer):
    name = Name()
    version_id = EnvironmentRelatedField(source="version", queryset=Version.objects.all(), what="version")
    tuning_profile = serializers.ChoiceField(list(WAIT_BY_PROFILE), required=False)
    wait = serializers.ChoiceField(["backoff", "spin"], required=False)
    stage_config = JSONObject(required=False)
    adapters = AdaptersSerializer(required=False)
    env = EnvVars(required=False)
    snapshot = SnapshotSerializer(required=False)
    required_capabilities = serializers.ListField(child=serializers.CharField(), read_only=True)
    known_bad = serializers.BooleanField(read_only=True)
    spec_hash = serializers.CharField(source="version.spec_hash", read_only=True)

    class Meta:
        model = ConfigBundle
        fields = [
            "id", "environment_id", "name", "version_id", "spec_hash", "tuning_profile", "wait", "stage_config",
            "adapters", "env", "snapshot", "required_capabilities", "config_hash", "known_bad", "created_by",
            "created_at",
        ]  # fmt: skip
        read_only_fields = ["config_hash", "created_by"]


class ReasonSerializer(Strict):
    reason = Text(max_length=2000)


class OptionalReasonSerializer(Strict):
    reason = Text(max_length=2000, required=False, allow_blank=True, default="")


class ProgressSerializer(serializers.Serializer[Any]):
    """How many of the deployment's agents are how far."""

    total = serializers.IntegerField()
    pending = serializers.IntegerField()
    offered = serializers.IntegerField()
    downloading = serializers.IntegerField()
    activating = serializers.IntegerField()
    active = serializers.IntegerField()
    failed = serializers.IntegerField()
    rolled_back = serializers.IntegerField()


class DeploymentSerializer(ModelSerializer):
    config_bundle_id = EnvironmentRelatedField(
        source="config_bundle", queryset=ConfigBundle.objects.select_related("version"), what="config bundle"
    )
    target = TargetSerializer()
    strategy = StrategySerializer(default=Strategy.all_at_once())
    note = Text(required=False, allow_blank=True, max_length=2000)
    take_over = serializers.BooleanField(required=False)
    override_freeze = ReasonSerializer(required=False, write_only=True)
    break_glass = BreakGlassSerializer(required=False, allow_null=True)
    approval = Text(
        required=False, write_only=True, max_length=16_384, help_text="The credential of an unused approval of the same"
    )
    approval_id = serializers.SerializerMethodField()
    version_id = serializers.UUIDField(source="config_bundle.version_id", read_only=True)
    spec_hash = serializers.CharField(source="config_bundle.version.spec_hash", read_only=True)
    progress = serializers.SerializerMethodField()

    class Meta:
        model = Deployment
        fields = [
            "id", "environment_id", "status", "config_bundle_id", "version_id", "pipeline", "spec_hash",
            "config_hash", "bundle_hash", "bundle_size", "target", "target_count", "strategy", "take_over",
            "approval", "override_freeze", "freeze_override", "break_glass", "wave", "progress", "is_current",
            "superseded_by", "restores", "rollback_reason", "paused_at", "approval_id", "approved_at", "activated_at",
            "requested_by", "reason", "detail", "note", "created_at",
        ]  # fmt: skip
        read_only_fields = [
            "status", "pipeline", "config_hash", "bundle_hash", "bundle_size", "target_count", "wave", "is_current",
            "freeze_override",
            "superseded_by", "restores", "rollback_reason", "paused_at", "approved_at", "activated_at",
            "requested_by", "reason", "detail",
        ]  # fmt: skip

    def get_approval_id(self, deployment: Deployment) -> UUID | None:
        """Of the approval that it goes by: asked for by it, or handed in with it."""
        approval_id: UUID | None = deployment.handed_in_id or deployment.approval_id
        return approval_id

    @extend_schema_field(ProgressSerializer)
    def get_progress(self, deployment: Deployment) -> dict[str, int]:
        """Counted in the query that found the deployment."""
        counts = {p.value: getattr(deployment, f"count_{p}") for p in AgentProgress}
        return {"total": sum(counts.values()), **counts}


class UnmetSettingSerializer(Strict):
    refuses_unknown = False
    setting = Text(max_length=200)
    reason = Text(max_length=2000)


class TuningSerializer(serializers.Serializer[Any]):
    """What the config bundle asked for, and how much of it the agent could do."""

    requested = serializers.DictField(child=serializers.CharField())
    applied = serializers.DictField()
    degraded = UnmetSettingSerializer(many=True)
    failed = UnmetSettingSerializer(many=True)


class DeploymentAgentSerializer(ModelSerializer):
    agent_name = serializers.CharField(source="agent.name", read_only=True)
    tuning = serializers.SerializerMethodField()

    class Meta:
        model = DeploymentAgent
        fields = [
            "agent_id", "agent_name", "wave", "counted", "action", "progress", "offered_at", "tuning", "detail",
            "updated_at",
        ]  # fmt: skip

    @extend_schema_field(TuningSerializer)
    def get_tuning(self, row: DeploymentAgent) -> dict[str, Any]:
        """The agent's report beside what was requested."""
        config, said = row.deployment.config_bundle, row.tuning or {}
        return {
            "requested": {"profile": config.tuning_profile, "wait": config.wait},
            "applied": said.get("applied", {}),
            "degraded": said.get("degraded", []),
            "failed": said.get("failed", []),
        }


class TimelineEntrySerializer(ModelSerializer):
    detail = serializers.DictField()

    class Meta:
        model = TimelineEntry
        fields = ["id", "event", "actor", "detail", "created_at"]


class DecisionSerializer(ModelSerializer):
    class Meta:
        model = ApprovalDecision
        fields = ["id", "user_id", "decided_by", "decision", "comment", "created_at"]


class ApprovalSerializer(ModelSerializer):
    deployment_id = serializers.UUIDField(source="deployment.id", allow_null=True, default=None)
    decisions = DecisionSerializer(many=True)
    target = StoredForm(allow_null=True)
    strategy = StoredForm(allow_null=True)
    capabilities = serializers.ListField(child=serializers.CharField())
    credential = serializers.SerializerMethodField()

    class Meta:
        model = Approval
        fields = [
            "id", "environment_id", "status", "deployment_id", "replay_id", "break_glass", "spec_hash", "config_hash",
            "target", "strategy", "capabilities", "required_approvals", "allow_self_approval", "requested_by",
            "decisions", "expires_at", "approved_at", "used_at", "credential", "created_at",
        ]  # fmt: skip

    def get_credential(self, approval: Approval) -> str | None:
        """Only for those who operate the environment."""
        view = self.context.get("view")
        may = view is not None and Permission.OPERATE_ENVIRONMENT in view.granted
        return approval.credential if may else None


class DecideSerializer(Strict):
    """A decision on a deployment's or a replay's approval."""

    deployment_id = EnvironmentRelatedField(
        source="deployment",
        queryset=Deployment.objects.select_related("approval"),
        what="deployment",
        required=False,
    )
    replay_id = Id(required=False)
    decision = serializers.ChoiceField(["approve", "deny"])
    comment = Text(required=False, allow_blank=True, max_length=2000)
    expires_in_s = serializers.IntegerField(required=False, min_value=60, max_value=30 * 86400)

    def validate(self, attrs: Any) -> Any:
        """With the ``approval`` that is meant, None where none is needed. Raises ValidationError."""
        if "deployment" not in attrs and "replay_id" not in attrs:
            wrong = {"deployment_id": [ErrorDetail("This field, or replay_id, is required.", code="required")]}
            raise serializers.ValidationError(wrong)
        if "deployment" in attrs and "replay_id" in attrs:
            wrong = {"replay_id": [ErrorDetail("A decision is on one of the two.", code="one_of")]}
            raise serializers.ValidationError(wrong)
        if "deployment" in attrs:
            attrs["approval"] = attrs.pop("deployment").approval
            return attrs
        here = Approval.objects.filter(environment=self.context["view"].environment)
        attrs["approval"] = here.filter(replay_id=attrs.pop("replay_id")).first()
        if attrs["approval"] is None:
            said = "There is no such replay that needs approval in this environment."
            raise serializers.ValidationError({"replay_id": [ErrorDetail(said, code="does_not_exist")]})
        return attrs


class AgentTuningSerializer(Strict):
    """How much of the tuning profile the agent could do; what it says beyond that is not kept."""

    refuses_unknown = False
    profile = Text(max_length=200, required=False)
    applied = JSONObject(required=False)
    degraded = UnmetSettingSerializer(many=True, required=False, max_length=100)  # type: ignore[call-arg]  # the list's
    failed = UnmetSettingSerializer(many=True, required=False, max_length=100)  # type: ignore[call-arg]  # the list's


class ReportSerializer(Strict):
    """An agent's word on its offer."""

    deployment_id = Id()
    status = serializers.ChoiceField(["downloading", "activating", "active", "failed", "rolled_back"])
    bundle_hash = Hash()
    detail = Text(required=False, allow_blank=True, max_length=4000)
    tuning = AgentTuningSerializer(required=False)


class ReportAnswerSerializer(serializers.Serializer[Any]):
    accepted = serializers.BooleanField()


class DesiredSerializer(OfferSerializer):
    bundle_size = serializers.IntegerField()
    envelope = serializers.DictField()


class DesiredAnswerSerializer(serializers.Serializer[Any]):
    """What the server wants of the agent, with the signed envelope of the bundle."""

    desired = DesiredSerializer(allow_null=True)
