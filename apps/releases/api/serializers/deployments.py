"""Deployments, their agents and their timeline."""

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
from byteor.engine.rollout import Strategy
from byteor_cloud.api.fields import EnvironmentRelatedField, IdField, ModelSerializer, StrictSerializer, TextField


class ReasonSerializer(StrictSerializer):
    reason = TextField(max_length=2000)


class OptionalReasonSerializer(StrictSerializer):
    reason = TextField(max_length=2000, required=False, allow_blank=True, default="")


class RetrySerializer(OptionalReasonSerializer):
    agents = serializers.ListField(child=IdField(), required=False, min_length=1, max_length=100_000)
    descriptions = {
        "agents": "The ids of the failed agents to retry. Without it, all failed agents are retried.",
    }


class FailureSerializer(serializers.Serializer[Any]):
    """An agent's latest failure in a deployment. A retry and a rollback keep it."""

    reason = serializers.ChoiceField(list(FailureReason))
    detail = serializers.CharField()
    at = serializers.DateTimeField()
    descriptions = {
        "reason": (
            "`reported`: the agent reported that it could not activate the bundle. `timeout`: it did not finish in "
            "time. `rollback_reported` and `rollback_timeout`: the same for its rollback."
        ),
        "detail": "What the agent reported, or how much time it had.",
        "at": "When the agent failed.",
    }


class CauseSerializer(serializers.Serializer[Any]):
    """The agents that failed for one cause."""

    reason = serializers.ChoiceField([*FailureReason, OTHER_CAUSES])
    detail = serializers.CharField()
    count = serializers.IntegerField()
    agents = serializers.ListField(child=serializers.UUIDField())
    descriptions = {
        "reason": (
            "The `reason` of the failures. `other` joins the causes beyond the "
            f"{failures.MAX_CAUSES} most frequent ones."
        ),
        "detail": "The `detail` of the failures, with numbers, ids and hashes masked. It may be cut.",
        "count": "How many agents failed for this cause, including agents that were retried or rolled back since.",
        "agents": "The ids of the first five of these agents.",
    }


class ProgressSerializer(serializers.Serializer[Any]):
    """The number of the deployment's agents, in all and by progress."""

    total = serializers.IntegerField()
    pending = serializers.IntegerField()
    offered = serializers.IntegerField()
    downloading = serializers.IntegerField()
    activating = serializers.IntegerField()
    active = serializers.IntegerField()
    failed = serializers.IntegerField()
    rolled_back = serializers.IntegerField()
    descriptions = {
        "total": "All agents of the deployment.",
        "pending": "Agents that the deployment was not offered to yet.",
        "offered": "Agents that the deployment was offered to and that have not reported yet.",
        "downloading": "Agents that download the bundle.",
        "activating": "Agents that activate the bundle.",
        "active": "Agents that run the bundle.",
        "failed": "Agents on which the deployment failed.",
        "rolled_back": "Agents that were rolled back to what they ran before.",
    }


class BlockerSerializer(serializers.Serializer[Any]):
    """One reason why a deployment cannot continue now."""

    code = serializers.ChoiceField(list(BlockerCode))
    detail = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)
    ids = serializers.ListField(child=serializers.UUIDField())
    descriptions = {
        "code": "A stable code: `freeze_window` (a freeze window is open), `in_flight_limit` (as many deployments are "
        "under way as the environment permits), `pipeline_busy` and `agents_busy` (another deployment of the pipeline, "
        "or with some of the agents, comes first), or `held_up` (its job failed for good, or waits for the control "
        "plane's database or storage).",
        "detail": "The reason as a sentence.",
        "until": "When the reason ends. Null if that is not known.",
        "ids": "The deployments that it waits for.",
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
    break_glass = BreakGlassSerializer(required=False, allow_null=True)
    approval = TextField(required=False, write_only=True, max_length=16_384)
    approval_id = serializers.SerializerMethodField()
    version_id = serializers.UUIDField(source="config_bundle.version_id", read_only=True)
    spec_hash = serializers.CharField(source="config_bundle.version.spec_hash", read_only=True)
    progress = serializers.SerializerMethodField()
    failures = serializers.SerializerMethodField()
    blockers = serializers.SerializerMethodField()

    descriptions = {
        "status": "The deployment's status.",
        "config_bundle_id": "The config bundle to deploy.",
        "version_id": "The version in the config bundle.",
        "pipeline": "The name of the pipeline.",
        "bundle_hash": "The SHA-256 of the deploy bundle. Null before it is built.",
        "bundle_size": "The size of the deploy bundle in bytes. Null before it is built.",
        "target": "The agents that the deployment is for. Send exactly one of `agents`, `selector` and `all`.",
        "target_count": "How many agents matched the target when the deployment was created.",
        "strategy": "How the deployment spreads over the agents. Default: all at once.",
        "take_over": "Whether the deployment may take over agents that run another pipeline. Default: false.",
        "approval": "The credential of an unused approval of an equal request: the same configuration, target, "
        "strategy, `take_over` and `override_freeze`, and the same `agent_timeout_s` of the environment. Only the note "
        "may differ.",
        "override_freeze": "Deploy although a freeze window is open. Needs `org_admin`.",
        "freeze_override": "Why a freeze window was overridden, and by whom. Null if no window was overridden.",
        "break_glass": (
            "Deploy in an emergency before anybody has approved. Needs `org_admin`; another person must approve "
            "afterwards. Null without break-glass."
        ),
        "wave": "The wave that the deployment has reached, counted from 0.",
        "progress": "The number of the deployment's agents by their progress.",
        "failures": "Why agents failed, the most frequent cause first. Null in lists.",
        "blockers": "Why the deployment cannot continue now. An approved deployment starts when the list is empty. "
        "Null in lists.",
        "is_current": "Whether the environment runs this deployment now for its pipeline.",
        "superseded_by": "The deployment that replaced this one. Null if none did.",
        "restores": "The deployment that the rollback of this one restores. Null if there is no rollback.",
        "rollback_reason": "Why the deployment is rolled back.",
        "paused_at": "When the deployment was paused. Null if it is not paused.",
        "approved_at": "When the deployment was approved. Null if it was not approved.",
        "activated_at": "When the deployment became active. Null if it did not.",
        "reason": "A code that says why the deployment failed. Empty if it did not fail.",
        "detail": "A sentence that says why the deployment failed. Empty if it did not fail.",
        "note": "A note of the requester.",
    }

    class Meta:
        model = Deployment
        fields = [
            "id", "environment_id", "status", "config_bundle_id", "version_id", "pipeline", "spec_hash",
            "config_hash", "bundle_hash", "bundle_size", "target", "target_count", "strategy", "take_over",
            "approval", "override_freeze", "freeze_override", "break_glass", "wave", "progress", "failures",
            "is_current", "superseded_by", "restores", "rollback_reason", "paused_at", "approval_id", "approved_at",
            "activated_at", "requested_by", "reason", "detail", "blockers", "note", "created_at",
        ]  # fmt: skip
        read_only_fields = [
            "status", "pipeline", "config_hash", "bundle_hash", "bundle_size", "target_count", "wave", "is_current",
            "freeze_override",
            "superseded_by", "restores", "rollback_reason", "paused_at", "approved_at", "activated_at",
            "requested_by", "reason", "detail",
        ]  # fmt: skip

    def get_approval_id(self, deployment: Deployment) -> UUID | None:
        """The approval that permits the deployment: the one whose credential was sent with it, or its own request."""
        approval_id: UUID | None = deployment.handed_in_id or deployment.approval_id
        return approval_id

    @extend_schema_field(ProgressSerializer)
    def get_progress(self, deployment: Deployment) -> dict[str, int]:
        """Return the counts, which the query of the deployment has read."""
        counts: dict[str, int] = deployment.by_progress or dict.fromkeys(AgentProgress, 0)  # type: ignore[attr-defined]
        return {"total": sum(counts.values()), **counts}

    @extend_schema_field(CauseSerializer(many=True, allow_null=True))
    def get_failures(self, deployment: Deployment) -> Any:
        """Return the causes of failures; None in a list, where each deployment would need a query."""
        if isinstance(self.parent, serializers.ListSerializer):
            return None
        return CauseSerializer(failures.find_causes(deployment), many=True).data

    @extend_schema_field(BlockerSerializer(many=True, allow_null=True))
    def get_blockers(self, deployment: Deployment) -> Any:
        """Return the blockers of one deployment. Lists leave them out, because each row would take queries."""
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
    """The tuning that the config bundle requests, and how much of it the agent could apply."""

    requested = serializers.DictField(child=serializers.CharField())
    applied = serializers.DictField()
    degraded = UnmetSettingSerializer(many=True)
    failed = UnmetSettingSerializer(many=True)
    descriptions = {
        "requested": "The settings that the config bundle requests.",
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
        "wave": "The wave in which the agent is offered the deployment, counted from 0. Null for a late joiner.",
        "counted": "Whether the agent counts for waves and thresholds.",
        "action": "What the agent was offered: `activate` or `rollback`.",
        "progress": "The agent's progress.",
        "offered_at": "When the deployment was offered to the agent. Null if it was not offered yet.",
        "tuning": "How much of the tuning profile the agent could apply.",
        "detail": "What the agent reported last, such as the reason of a failure. Empty after a new offer.",
        "failure": (
            "The agent's latest failure to activate the bundle, or, without one, to roll back. It stays when the agent "
            "is retried or rolled back. Null if the agent never failed in this deployment."
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
        """Return the agent's failure, which the query of the list has read."""
        failure = row.failure
        return None if failure is None else FailureSerializer(failure).data

    @extend_schema_field(TuningSerializer)
    def get_tuning(self, row: DeploymentAgent) -> dict[str, Any] | None:
        """Return the requested tuning and what the agent reported of it; None if the report is too large for a list."""
        if row.tuning is None and row.reported_tuning:  # type: ignore[attr-defined]  # annotated by the view
            return None
        config, said = row.deployment.config_bundle, row.tuning or {}
        return {
            "requested": {"profile": config.tuning_profile, "wait": config.wait},
            "applied": said.get("applied", {}),
            "degraded": said.get("degraded", []),
            "failed": said.get("failed", []),
        }


class TimelineEntrySerializer(ModelSerializer):
    detail = serializers.DictField()

    descriptions = {
        "event": "The kind of event.",
        "actor": "Who caused the event, as an e-mail address or the name of an API key. Empty for the system.",
        "detail": "More about the event. The keys depend on the kind of event.",
    }

    class Meta:
        model = TimelineEntry
        fields = ["id", "event", "actor", "detail", "created_at"]
