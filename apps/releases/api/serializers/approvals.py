"""Serializers of approvals and decisions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from apps.releases.api.fields import StoredFormField
from apps.releases.api.serializers.bundles import WARNINGS, ConfigWarningSerializer
from apps.releases.api.serializers.deployments import GROUP_ID, DifferenceExplanationSerializer
from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.services.bundles import warnings_of
from apps.tenancy.permissions import Permission
from byteor.engine.failures import OTHER_CAUSES, FailureReason
from byteor.engine.regression import MAX_GROUPS
from byteor_cloud.api.fields import EnvironmentRelatedField, IdField, ModelSerializer, StrictSerializer, TextField


class DecisionSerializer(ModelSerializer):
    descriptions = {
        "user_id": "The id of the person who decided.",
        "decided_by": "The e-mail address of the person who decided.",
        "decision": "The decision: `approve` or `deny`.",
        "comment": "The person's comment. May be empty.",
        "created_at": "When the person decided.",
    }

    class Meta:
        model = ApprovalDecision
        fields = ["id", "user_id", "decided_by", "decision", "comment", "created_at"]


class WaveFailureSerializer(serializers.Serializer[Any]):
    """One cause of failures in the earlier waves."""

    reason = serializers.ChoiceField([FailureReason.REPORTED, FailureReason.TIMEOUT, OTHER_CAUSES])
    detail = serializers.CharField()
    count = serializers.IntegerField()
    descriptions = {
        "reason": "`reported`: the agents reported the failure. `timeout`: they did not finish in time. `other`: the "
        "sum of the rarer causes.",
        "detail": "The detail of the failures, with numbers, ids and hashes masked. Empty for `other`, and if the "
        "agents reported no detail.",
        "count": "The number of agents.",
    }


class WaveReportSerializer(serializers.Serializer[Any]):
    """What the counted agents of the earlier waves did."""

    digest = serializers.CharField()
    summary = serializers.CharField()
    progress = serializers.DictField(child=serializers.IntegerField())
    failures = WaveFailureSerializer(many=True)
    descriptions = {
        "digest": "The digest of the whole report, which includes the deployment, the bundle and the wave. A decision "
        "on the wave must contain this digest.",
        "summary": "The report in words.",
        "progress": "The number of agents by progress.",
        "failures": "Why agents failed, with the most frequent cause first and `other` last. Failures of agents that "
        "have been retried since are included.",
    }


class ApprovalSerializer(ModelSerializer):
    deployment_id = serializers.SerializerMethodField()
    wave_report = WaveReportSerializer(allow_null=True)
    reviewers = serializers.ListField(child=serializers.UUIDField())
    start_at = serializers.DateTimeField(source="bound_options.start_at", allow_null=True)
    decisions = DecisionSerializer(many=True)
    target = StoredFormField(allow_null=True)
    strategy = StoredFormField(allow_null=True)
    take_over = serializers.BooleanField(source="bound_options.take_over")
    agent_timeout_s = serializers.IntegerField(source="bound_options.agent_timeout_s", allow_null=True)
    override_freeze = serializers.CharField(source="bound_options.override_freeze", allow_null=True)
    override_replay_gate = serializers.CharField(source="bound_options.override_replay_gate", allow_null=True)
    explain = DifferenceExplanationSerializer(many=True)
    capabilities = serializers.ListField(child=serializers.CharField())
    warnings = serializers.SerializerMethodField()
    credential = serializers.SerializerMethodField()
    reads = frozenset({"options"})

    descriptions = {
        "status": "The status of the approval.",
        "deployment_id": "The id of the deployment that the approval is for. Null if it is for a replay.",
        "wave": "The wave that the approval is for, counted from 0. Null if it is not for a wave.",
        "wave_report": "What the earlier waves did. A decision on the wave covers exactly this report. Null if the "
        "approval is not for a wave.",
        "reviewers": "The ids of the users who may decide. If empty, everybody with the permission "
        "`environment:operate` may decide.",
        "start_at": "The time before which the deployment does not start. Null if it starts as soon as possible.",
        "replay_id": "The id of the replay that the approval is for. Null if it is for a deployment.",
        "break_glass": "Whether the approval is for a break-glass deployment, which can start before anybody approves.",
        "target": "The target that the approval covers. For a deployment: the requested target, and the number "
        "(`count`) and first ids (`resolved`) of the agents that matched it when the deployment was requested. For a "
        "wave, `resolved` is empty. For a replay: the artifact, the version and the other values that decide what "
        "runs. Null for some replays that were requested in an older release of the control plane.",
        "strategy": "The strategy that the approval covers. Null for a replay.",
        "take_over": "Whether the approval covers taking over agents that run another pipeline.",
        "agent_timeout_s": "The agent timeout that the approval covers, in seconds. The deployment copied it from the "
        "environment. Null for a replay.",
        "override_freeze": "The reason to override freeze windows. Null if the approval does not cover an override.",
        "override_replay_gate": "The reason to override the replay gate. Null if the approval does not cover an "
        "override.",
        "explain": "The requester's explanations of differences.",
        "capabilities": "The capabilities that the approval permits.",
        "warnings": f"{WARNINGS} Empty for a replay or a wave.",
        "required_approvals": "The number of people who must approve.",
        "allow_self_approval": "Whether the requester may approve.",
        "decisions": "The decisions, one for each person who has decided.",
        "expires_at": "When the pending request expires. The request does not expire while its deployment waits for an "
        "unfinished regression or, for a wave, while its deployment is paused. If the approval credential was issued: "
        "when the credential expires.",
        "approved_at": "When the request was approved. Null if it was not approved.",
        "used_at": "When the approval was used. For a break-glass deployment, this is when the deployment was "
        "approved. Null if the approval was not used.",
        "credential": "The approval credential. Null if the request was not approved, if the approval is for a wave, "
        "and for callers without the permission `environment:operate`.",
        "config_hash": "The config hash that the approval covers. Null for a replay if the request named no config "
        "bundle and the artifact has no deployment.",
        "spec_hash": "The spec hash that the approval covers.",
    }

    class Meta:
        model = Approval
        fields = [
            "id", "environment_id", "status", "deployment_id", "replay_id", "wave", "wave_report", "break_glass",
            "spec_hash", "config_hash", "target", "strategy", "take_over", "agent_timeout_s", "override_freeze",
            "override_replay_gate", "start_at", "reviewers", "explain", "capabilities", "warnings",
            "required_approvals", "allow_self_approval", "requested_by", "decisions", "expires_at", "approved_at",
            "used_at", "credential", "created_at",
        ]  # fmt: skip

    def get_deployment_id(self, approval: Approval) -> UUID | None:
        if approval.rollout_id is not None:
            return approval.rollout_id
        deployment = getattr(approval, "deployment", None)
        return None if deployment is None else deployment.pk

    @extend_schema_field(ConfigWarningSerializer(many=True, allow_null=True))
    def get_warnings(self, approval: Approval) -> list[dict[str, str]] | None:
        """Return the warnings about the deployment's config bundle, or an empty list for a replay or a wave.

        In a list, return None, because the list's query reads no parameters.
        """
        if isinstance(self.parent, serializers.ListSerializer):
            return None
        deployment = getattr(approval, "deployment", None)
        return [] if deployment is None else [each._asdict() for each in warnings_of(deployment.config_bundle)]

    def get_credential(self, approval: Approval) -> str | None:
        view = self.context.get("view")
        may = view is not None and Permission.OPERATE_ENVIRONMENT in view.granted_permissions
        return approval.credential if may else None


def _find_wave(deployment: Deployment, wave: int) -> Approval:
    """Return the newest approval of the wave. Raises ValidationError if none was requested."""
    found = deployment.wave_approvals.filter(wave=wave).order_by("-pk").first()
    if found is None:
        wrong = {"wave": [ErrorDetail("No approval was requested for this wave.", code="does_not_exist")]}
        raise serializers.ValidationError(wrong)
    return found


class DecideSerializer(StrictSerializer):
    """A decision on the approval of a deployment, a wave or a replay."""

    deployment_id = EnvironmentRelatedField(
        source="deployment",
        queryset=Deployment.objects.select_related("approval"),
        what="deployment",
        required=False,
    )
    replay_id = IdField(required=False)
    decision = serializers.ChoiceField(["approve", "deny"])
    comment = TextField(required=False, allow_blank=True, max_length=2000)
    expires_in_s = serializers.IntegerField(required=False, min_value=60, max_value=30 * 86400)
    accept_groups = serializers.ListField(
        child=TextField(pattern=GROUP_ID, rule="Must be the id of a group."),
        required=False,
        min_length=1,
        max_length=MAX_GROUPS,
    )
    regression_id = IdField(required=False)
    wave = serializers.IntegerField(required=False, min_value=1, max_value=99)
    digest = TextField(
        required=False, pattern=r"^sha256:[0-9a-f]{64}$", rule="Must be `sha256:` and 64 lowercase hexadecimal digits."
    )

    descriptions = {
        "deployment_id": "The id of the deployment to decide on. Send either this or `replay_id`.",
        "replay_id": "The id of the execute replay to decide on. Send either this or `deployment_id`.",
        "decision": "Whether to approve or to deny the request.",
        "comment": "A comment for the requester. Required for a denial, and with `accept_groups`.",
        "accept_groups": "The ids of groups of differences to accept together with the approval. They must be in the "
        "regression of the deployment. The comment is the reason. Do not send it with `wave` or `replay_id`.",
        "wave": "The wave to decide on, counted from 0. Send it with `deployment_id` and `digest`. By default, the "
        "decision is on the deployment's own approval.",
        "digest": "The `digest` of the wave's report that you have read. If the report has changed since, returns "
        "409 `approval.outdated`. Required with `wave`.",
        "regression_id": "The id of the regression that you have read. If it is no longer the deployment's regression, "
        "returns 409 `acceptance.outdated`. By default, this is not checked. Do not send it with `wave` or "
        "`replay_id`.",
        "expires_in_s": "The number of seconds until the approval credential expires, counted from the decision or "
        "from the start time of the deployment, whichever is later. Used only for the last required approval, which "
        "issues the credential. Do not send it with `wave`. The environment's `approval_ttl_s` is both the default and "
        "the maximum. For a deployment, the setting's value at the creation of the deployment applies.",
    }

    def validate(self, attrs: Any) -> Any:
        """Return the fields with ``approval``, which is None if the deployment has none. Raises ValidationError."""
        if "deployment" not in attrs and "replay_id" not in attrs:
            wrong = {"deployment_id": [ErrorDetail("Send deployment_id or replay_id.", code="required")]}
            raise serializers.ValidationError(wrong)
        if "deployment" in attrs and "replay_id" in attrs:
            wrong = {"replay_id": [ErrorDetail("Send either deployment_id or replay_id, not both.", code="one_of")]}
            raise serializers.ValidationError(wrong)
        wave = attrs.pop("wave", None)
        if wave is not None and "deployment" not in attrs:
            wrong = {"wave": [ErrorDetail("Send wave only with deployment_id.", code="contradiction")]}
            raise serializers.ValidationError(wrong)
        if "deployment" in attrs:
            deployment = attrs.pop("deployment")
            attrs["approval"] = deployment.approval if wave is None else _find_wave(deployment, wave)
            return attrs
        here = Approval.objects.filter(environment=self.context["view"].environment)
        attrs["approval"] = here.filter(replay_id=attrs.pop("replay_id")).first()
        if attrs["approval"] is None:
            detail = "This environment has no such replay that needs approval."
            raise serializers.ValidationError({"replay_id": [ErrorDetail(detail, code="does_not_exist")]})
        return attrs
