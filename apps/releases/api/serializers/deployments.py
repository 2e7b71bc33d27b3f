"""Serializers of deployments, their agents and their timelines."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.releases.api.fields import BreakGlassSerializer, StrategySerializer, TargetSerializer
from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent, TimelineEntry
from apps.releases.services import failures
from apps.releases.services.blockers import list_blockers
from byteor.engine.blockers import BlockerCode
from byteor.engine.failures import OTHER_CAUSES, FailureReason
from byteor.engine.machines import AgentProgress
from byteor.engine.rollout import Hold, Strategy
from byteor_cloud.api.fields import (
    EnvironmentRelatedField,
    IdField,
    ModelSerializer,
    StrictSerializer,
    TextField,
    TimestampField,
)

GROUP_ID = r"^[0-9a-f]{64}$"


class ReasonSerializer(StrictSerializer):
    reason = TextField(max_length=2000)


class OptionalReasonSerializer(StrictSerializer):
    reason = TextField(max_length=2000, required=False, allow_blank=True, default="")


class RetrySerializer(OptionalReasonSerializer):
    agents = serializers.ListField(child=IdField(), required=False, min_length=1, max_length=100_000)
    descriptions = {
        "agents": "The ids of the failed agents to retry. Defaults to all failed agents that can be retried.",
    }


class DifferenceExplanationSerializer(StrictSerializer):
    """A requester's explanation of a group of differences."""

    group = TextField(pattern=GROUP_ID, rule="Must be the id of a group.")
    text = TextField(max_length=2000)
    descriptions = {
        "group": "The id of a group of differences, as regressions show it.",
        "text": "Why the differences are wanted.",
    }


class FailureSerializer(serializers.Serializer[Any]):
    """An agent's failure in a deployment. It is kept when the agent is retried or rolled back."""

    reason = serializers.ChoiceField(list(FailureReason))
    detail = serializers.CharField()
    at = serializers.DateTimeField()
    descriptions = {
        "reason": (
            "`reported`: the agent reported that it could not activate the bundle. `timeout`: the agent did not "
            "finish in time. `rollback_reported`: the agent reported that it could not roll back. `rollback_timeout`: "
            "the agent did not finish its rollback in time."
        ),
        "detail": "The detail that the agent reported, which may be empty. After a timeout: the time limit in words.",
        "at": "When the failure was recorded.",
    }


class CauseSerializer(serializers.Serializer[Any]):
    """One cause of failures and the agents that failed for it. The cause `other` combines the rarer causes."""

    reason = serializers.ChoiceField([*FailureReason, OTHER_CAUSES])
    detail = serializers.CharField()
    count = serializers.IntegerField()
    agents = serializers.ListField(child=serializers.UUIDField())
    descriptions = {
        "reason": (
            "The `reason` of the failures. `other` stands for all causes after the "
            f"{failures.MAX_CAUSES} most frequent ones."
        ),
        "detail": "The `detail` of the failures, with numbers, ids and hashes masked. It may be truncated. Empty for "
        "`other`, and if the agents reported no detail.",
        "count": "The number of agents whose latest failure to activate the bundle, or whose latest failure to roll "
        "back, had this cause. Includes agents that have been retried or rolled back since.",
        "agents": "The ids of the first five agents that `count` includes. Empty for `other`.",
    }


class ProgressSerializer(serializers.Serializer[Any]):
    """The number of the deployment's enlisted agents, in total and by progress."""

    total = serializers.IntegerField()
    pending = serializers.IntegerField()
    offered = serializers.IntegerField()
    downloading = serializers.IntegerField()
    activating = serializers.IntegerField()
    active = serializers.IntegerField()
    failed = serializers.IntegerField()
    rolled_back = serializers.IntegerField()
    descriptions = {
        "total": "The number of all enlisted agents of the deployment.",
        "pending": "Agents without an offer from this deployment.",
        "offered": "Agents that have not reported on their latest offer from this deployment.",
        "downloading": "Agents whose last report was `downloading`.",
        "activating": "Agents whose last report was `activating`.",
        "active": "Agents that activated the bundle, and agents that the rollback of another deployment added.",
        "failed": "Agents that failed to activate the bundle or to roll back.",
        "rolled_back": "Agents that rolled back.",
    }


class BlockerSerializer(serializers.Serializer[Any]):
    """One blocker of a deployment."""

    code = serializers.ChoiceField(list(BlockerCode))
    detail = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)
    ids = serializers.ListField(child=serializers.UUIDField())
    descriptions = {
        "code": "A stable code. `freeze_window`: a freeze window is open. `in_flight_limit`: as many deployments are "
        "under way as the environment permits. `pipeline_busy`: another deployment of the pipeline comes first. "
        "`agents_busy`: another deployment with some of the agents comes first. `start_at`: the start time has not "
        "been reached. `wave_hold`: the next wave waits for approval or a manual start. `too_few_reviewers`: fewer "
        "reviewers than required have approved or can still approve. `replay_gate.running`: the regression has not "
        "finished. `replay_gate.differs`: differences are not accepted, or are too many to be grouped. "
        "`replay_gate.failed`: the candidate failed or is unstable for a fixture, the candidate needs too much work, "
        "or the regression has no result. `replay_gate.too_few_fixtures`: the regression has too few verdicts. "
        "`held_up`: the deployment's job failed permanently, the job waits for the control plane's database or "
        "storage, or agents cannot download the bundle.",
        "detail": "The reason as a sentence.",
        "until": "When the blocker is expected to end. For the replay gate: when the deployment fails if the blocker "
        "still exists. Null if there is no such time or it is not known.",
        "ids": "The ids of the other deployments that this one waits for. Empty for all codes except "
        "`in_flight_limit`, `pipeline_busy` and `agents_busy`.",
    }


class WaveHoldSerializer(serializers.Serializer[Any]):
    """The hold before the next wave."""

    wave = serializers.IntegerField()
    kind = serializers.ChoiceField(list(Hold))
    since = serializers.DateTimeField()
    approval_id = serializers.UUIDField(allow_null=True)
    descriptions = {
        "wave": "The wave that waits, counted from 0.",
        "kind": "`manual`: somebody must start the wave with `next-wave`. `approval`: people must approve it.",
        "since": "When the hold began.",
        "approval_id": "The id of the wave's approval. Null for a manual hold.",
    }


class ReviewersSerializer(OptionalReasonSerializer):
    reviewers = serializers.ListField(child=IdField(), max_length=100)
    descriptions = {
        "reviewers": "The ids of the users who may decide on the deployment's approvals. If empty, everybody "
        "with the permission `environment:operate` may decide. The list may be empty only if the environment's "
        "setting `reviewers` is empty."
    }


class DeploymentSerializer(ModelSerializer):
    config_bundle_id = EnvironmentRelatedField(
        source="config_bundle", queryset=ConfigBundle.objects.select_related("version"), what="config bundle"
    )
    target = TargetSerializer()
    strategy = StrategySerializer(default=Strategy.all_at_once())
    note = TextField(required=False, allow_blank=True, max_length=2000)
    take_over = serializers.BooleanField(required=False)
    override_freeze = ReasonSerializer(required=False, write_only=True)
    override_replay_gate = ReasonSerializer(required=False, write_only=True)
    explain = DifferenceExplanationSerializer(many=True, required=False, max_length=100)  # type: ignore[call-arg]  # max_length is an argument of the list serializer
    break_glass = BreakGlassSerializer(required=False, allow_null=True)
    start_at = TimestampField(required=False, allow_null=True)
    reviewers = serializers.ListField(child=IdField(), required=False, max_length=100)
    wave_hold = serializers.SerializerMethodField()
    approval = TextField(required=False, write_only=True, max_length=16_384)
    approval_id = serializers.SerializerMethodField()
    version_id = serializers.UUIDField(source="config_bundle.version_id", read_only=True)
    spec_hash = serializers.CharField(source="config_bundle.version.spec_hash", read_only=True)
    progress = serializers.SerializerMethodField()
    failures = serializers.SerializerMethodField()
    blockers = serializers.SerializerMethodField()

    descriptions = {
        "status": "The deployment's status.",
        "config_bundle_id": "The id of the config bundle to deploy.",
        "version_id": "The id of the version in the config bundle.",
        "pipeline": "The name of the pipeline.",
        "bundle_hash": "The SHA-256 of the deploy bundle. Null if the bundle has not been built.",
        "bundle_size": "The size of the deploy bundle in bytes. Null if the bundle has not been built.",
        "target": "The agents that the deployment is for. Send exactly one of `agents`, `selector` and `all`.",
        "target_count": "The number of agents that matched the target when the deployment was created.",
        "strategy": "How the deployment spreads over the agents. Defaults to `all_at_once`.",
        "take_over": "Whether the deployment may take over agents that run another pipeline. Defaults to false.",
        "approval": "The credential of an unused approval. This request must be the same as the request that was "
        "approved: the configuration, target, strategy, `take_over`, `override_freeze`, `override_replay_gate`, "
        "`explain`, `start_at` and `reviewers` must be equal. The note may differ. The environment's `agent_timeout_s` "
        "must not have changed since.",
        "override_freeze": "Lets the deployment start during a freeze window. Needs a reason and the role `org_admin`.",
        "freeze_override": "The reason to start the deployment during a freeze window. Empty if the "
        "deployment does not override freeze windows.",
        "override_replay_gate": "Lets the deployment start although the replay gate would block it. Needs a reason and "
        "the role `org_admin`.",
        "replay_gate_override": "The reason to override the replay gate. Empty if the deployment does not override it.",
        "explain": "The requester's explanations of differences, which approvers see next to the differences. At most "
        "100.",
        "regression_id": "The id of the regression that the replay gate evaluates. Null if the gate was off at the "
        "request, or if the regression was deleted.",
        "break_glass": (
            "Starts the deployment in an emergency before anybody has approved it. Only a person with the role "
            "`org_admin` may do this. If the deployment is not approved in time, it is rolled back if possible. Null "
            "for a deployment without break-glass."
        ),
        "wave": "The wave that the deployment has reached, counted from 0.",
        "wave_hold": "The hold before the next wave. Null if no hold is in effect.",
        "start_at": "The time before which the deployment does not start, at most 30 days ahead. Until then, it is not "
        "in flight, and no other deployment waits for it. The time must not be in a freeze window, unless the "
        "deployment overrides freeze windows. The time limit for approving the deployment, the environment's "
        "`approval_ttl_s`, is counted from this time. Null if the deployment starts as soon as possible.",
        "reviewers": "The ids of the users who may decide on the approvals of the deployment, whatever their role. "
        "Defaults to the environment's setting `reviewers`. If the setting is not empty, only people in the setting "
        "can be named. If the setting is empty in `staging` or `prod`, only an `org_admin` can name people without the "
        "permission `environment:operate`. If the deployment needs no approval, the list is always empty. If the "
        "deployment needs approval and the list is empty, everybody with the permission `environment:operate` may "
        "decide.",
        "progress": "The number of the deployment's enlisted agents, in total and by progress. All are 0 before the "
        "bundle is built.",
        "failures": "Why agents failed, with the most frequent cause first and `other` last. Null in lists.",
        "blockers": "Why the deployment cannot continue now. When the list is empty, an approved deployment starts, or "
        "fails if it is no longer permitted to start. While the deployment is pending approval, the list contains only "
        "`too_few_reviewers` and the blockers of the replay gate. Nobody can approve the deployment while the replay "
        "gate blocks it. After break-glass, the list contains `too_few_reviewers` if too few reviewers remain for the "
        "pending approval. The deployment continues despite this blocker, which is the only one that a finished "
        "deployment can have. Null in lists.",
        "is_current": "Whether this is the deployment that the environment currently runs for the pipeline.",
        "superseded_by": "The id of the deployment that replaced this one. Null if no other has replaced it, if "
        "a rollback has restored it, or if the replacement was deleted.",
        "restores": "The id of the deployment that the rollback of this deployment restores. Null if no rollback was "
        "started, or if that deployment was deleted.",
        "rollback_reason": "Why a rollback of the deployment was started. Empty if none was.",
        "paused_at": "When the deployment was paused. Null if it is not paused.",
        "approval_id": "The id of the deployment's approval, whatever the status of the approval. If the request "
        "contained a credential, this is the approval of that credential. Null if the deployment has no approval.",
        "approved_at": "When the deployment was approved. If its request contained `approval`, this is when "
        "the deployment was created. Null if the deployment was not approved, or if it started by break-glass.",
        "activated_at": "When the deployment became active. Null if it has never been active.",
        "reason": "A code for why the deployment failed. Empty if it has not failed, or was retried since.",
        "detail": "More about why the deployment failed. May be empty.",
        "note": "The requester's note.",
    }

    class Meta:
        model = Deployment
        fields = [
            "id", "environment_id", "status", "config_bundle_id", "version_id", "pipeline", "spec_hash",
            "config_hash", "bundle_hash", "bundle_size", "target", "target_count", "strategy", "take_over",
            "approval", "override_freeze", "freeze_override", "override_replay_gate", "replay_gate_override", "explain",
            "regression_id", "break_glass", "start_at", "reviewers", "wave", "wave_hold", "progress", "failures",
            "is_current", "superseded_by", "restores", "rollback_reason", "paused_at", "approval_id", "approved_at",
            "activated_at", "requested_by", "reason", "detail", "blockers", "note", "created_at",
        ]  # fmt: skip
        read_only_fields = [
            "status", "pipeline", "config_hash", "bundle_hash", "bundle_size", "target_count", "wave", "is_current",
            "freeze_override", "replay_gate_override", "regression_id",
            "superseded_by", "restores", "rollback_reason", "paused_at", "approved_at", "activated_at",
            "requested_by", "reason", "detail",
        ]  # fmt: skip

    def get_approval_id(self, deployment: Deployment) -> UUID | None:
        approval_id: UUID | None = deployment.handed_in_id or deployment.approval_id
        return approval_id

    @extend_schema_field(WaveHoldSerializer(allow_null=True))
    def get_wave_hold(self, deployment: Deployment) -> Any:
        """Return the hold in effect, or None."""
        hold = deployment.wave_hold
        return None if hold is None or hold.is_over else WaveHoldSerializer(hold).data

    @extend_schema_field(ProgressSerializer)
    def get_progress(self, deployment: Deployment) -> dict[str, int]:
        """Return the counts, which the deployment's query has read."""
        counts: dict[str, int] = deployment.by_progress or dict.fromkeys(AgentProgress, 0)  # type: ignore[attr-defined]
        return {"total": sum(counts.values()), **counts}

    @extend_schema_field(CauseSerializer(many=True, allow_null=True))
    def get_failures(self, deployment: Deployment) -> Any:
        """Return the causes of failures, or None in a list, where each row would need a query."""
        if isinstance(self.parent, serializers.ListSerializer):
            return None
        return CauseSerializer(failures.find_causes(deployment), many=True).data

    @extend_schema_field(BlockerSerializer(many=True, allow_null=True))
    def get_blockers(self, deployment: Deployment) -> Any:
        """Return the blockers, or None in a list, where each row would need queries."""
        if isinstance(self.parent, serializers.ListSerializer):
            return None
        return BlockerSerializer(list_blockers(deployment), many=True).data


class UnmetSettingSerializer(StrictSerializer):
    refuses_unknown = False
    setting = TextField(max_length=200)
    reason = TextField(max_length=2000)
    descriptions = {
        "setting": "The name of the setting.",
        "reason": "Why the agent could not apply the setting in full.",
    }


class TuningSerializer(serializers.Serializer[Any]):
    """The tuning that the config bundle requests, and how much of it the agent reported to have applied."""

    requested = serializers.DictField(child=serializers.CharField())
    applied = serializers.DictField()
    degraded = UnmetSettingSerializer(many=True)
    failed = UnmetSettingSerializer(many=True)
    descriptions = {
        "requested": "The `profile` and the `wait` that the config bundle requests.",
        "applied": "The settings that the agent applied.",
        "degraded": "The settings that the agent applied in part.",
        "failed": "The settings that the agent could not apply.",
    }


class DeploymentAgentSerializer(ModelSerializer):
    agent_name = serializers.CharField(source="agent.name", read_only=True)
    tuning = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()

    descriptions = {
        "agent_name": "The agent's name.",
        "wave": "The agent's wave, counted from 0. For a late joiner, the wave that the deployment had reached.",
        "counted": "Whether the agent counts for waves and thresholds.",
        "action": "The action of the agent's offer: `activate` (also before the first offer) or `rollback`.",
        "progress": "The agent's progress in the deployment.",
        "offered_at": "When the deployment last made or renewed the agent's offer. If the rollback of another "
        "deployment added the agent: when that rollback made its offer. Null before the first offer, and if the "
        "offer was withdrawn.",
        "tuning": "How much of the tuning profile the agent could apply. Without a report, only `requested` has "
        "content.",
        "detail": "More about the agent's progress, such as the reason for a failure. Empty after a new offer.",
        "failure": (
            "The agent's latest failure to activate the bundle or, if there is none, to roll back. It is kept when the "
            "agent is retried or rolled back. Null if the agent has never failed in this deployment."
        ),
    }

    class Meta:
        model = DeploymentAgent
        fields = [
            "agent_id", "agent_name", "wave", "counted", "action", "progress", "offered_at", "tuning", "detail",
            "failure", "updated_at",
        ]  # fmt: skip

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, row: DeploymentAgent) -> Any:
        """Return the agent's failure, which the list's query has read."""
        failure = row.failure
        return None if failure is None else FailureSerializer(failure).data

    @extend_schema_field(TuningSerializer)
    def get_tuning(self, row: DeploymentAgent) -> dict[str, Any] | None:
        """Return the requested tuning and the agent's report on it, or None if the report is too large for a list."""
        if row.tuning is None and row.reported_tuning:  # type: ignore[attr-defined]  # annotated by the view
            return None
        config, reported = row.deployment.config_bundle, row.tuning or {}
        return {
            "requested": {"profile": config.tuning_profile, "wait": config.wait},
            "applied": reported.get("applied", {}),
            "degraded": reported.get("degraded", []),
            "failed": reported.get("failed", []),
        }


class TimelineEntrySerializer(ModelSerializer):
    detail = serializers.DictField()

    descriptions = {
        "event": "The kind of event.",
        "actor": "Who caused the event: an e-mail address, `key` and the name of an API key, or a part of the control "
        "plane, such as `system:rollout`.",
        "detail": "More about the event. The keys depend on the kind of event. The number of a `wave` counts from 1.",
    }

    class Meta:
        model = TimelineEntry
        fields = ["id", "event", "actor", "detail", "created_at"]
