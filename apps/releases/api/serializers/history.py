"""Serializers of the history of agents, and of the counts of an environment's agents."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class RunningIntervalSerializer(serializers.Serializer[Any]):
    """An interval in which an agent ran one bundle."""

    agent_id = serializers.UUIDField()
    agent_name = serializers.CharField(source="agent.name")
    to = serializers.DateTimeField(source="ended_at", allow_null=True)
    confirmed_until = serializers.DateTimeField(source="confirmed")
    deployment_id = serializers.UUIDField(source="origin.deployment_id", allow_null=True)
    bundle_hash = serializers.CharField()
    spec_hash = serializers.CharField()
    version_id = serializers.UUIDField(source="origin.version_id", allow_null=True)
    config_bundle_id = serializers.UUIDField(source="origin.config_bundle_id", allow_null=True)
    approval_id = serializers.UUIDField(source="origin.approval_id", allow_null=True)
    approved_by = serializers.ListField(source="origin.approved_by", child=serializers.CharField())

    descriptions = {
        "agent_name": "The agent's current name.",
        "from": "When the first heartbeat of the interval arrived. All heartbeats of an interval report the same "
        "bundle, deployment and spec hash.",
        "to": "When a heartbeat first reported another bundle, deployment or spec hash, or no bundle. Null if no "
        "heartbeat did, even if the agent has been decommissioned.",
        "confirmed_until": "When the last heartbeat of the interval arrived.",
        "deployment_id": "The id of this environment's deployment for which the bundle was built. If there is none, "
        "the id of the deployment that the agent reported. Null if it reported none, or one of another environment.",
        "bundle_hash": "The SHA-256 of the deploy bundle.",
        "spec_hash": "The spec hash that the agent reported.",
        "version_id": "The id of the deployment's version. Null if `deployment_id` is null.",
        "config_bundle_id": "The id of the deployment's config bundle. Null if `deployment_id` is null.",
        "approval_id": "The id of the deployment's approval, whatever its status. Null if there is none, or if "
        "`deployment_id` is null.",
        "approved_by": "The e-mail addresses of the people who approved the deployment. May be empty.",
    }

    def get_fields(self) -> dict[str, Any]:
        """Return the fields with ``from``, which cannot be the name of an attribute in Python."""
        fields: dict[str, Any] = super().get_fields()
        first = {name: fields.pop(name) for name in ("agent_id", "agent_name")}
        return {**first, "from": serializers.DateTimeField(source="started_at"), **fields}


class VersionCountSerializer(serializers.Serializer[Any]):
    version_id = serializers.UUIDField(allow_null=True)
    number = serializers.IntegerField(allow_null=True)
    pipeline = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    descriptions = {
        "version_id": "The id of the version. Null for bundles that were not built in this environment.",
        "number": "The number of the version. Null if `version_id` is null.",
        "pipeline": "The name of the version's pipeline. Null if `version_id` is null.",
        "count": "The number of agents that run the version or, if `version_id` is null, bundles built elsewhere.",
    }


class AgentSummarySerializer(serializers.Serializer[Any]):
    """The number of enrolled agents in the environment: in total, and by version, label and other attributes."""

    total = serializers.IntegerField(source="counts.total")
    liveness = serializers.DictField(source="counts.liveness", child=serializers.IntegerField())
    drifted = serializers.IntegerField(source="counts.drifted")
    cloned = serializers.IntegerField(source="counts.cloned")
    status = serializers.DictField(source="counts.status", child=serializers.IntegerField())
    versions = VersionCountSerializer(many=True)
    labels = serializers.DictField(
        source="counts.labels", child=serializers.DictField(child=serializers.IntegerField())
    )
    descriptions = {
        "total": "The number of all enrolled agents.",
        "liveness": "The number of agents by liveness.",
        "drifted": "The number of agents that do not run the bundle that they should run.",
        "cloned": "The number of agents with a suspected clone.",
        "status": "The number of agents by the status in their last heartbeat. Agents that have reported no status are "
        "not counted.",
        "versions": "The number of agents by running version, the most frequent first, at most 50. Agents that run "
        "nothing are not counted.",
        "labels": "The number of agents by label key and value, the most frequent first. At most 200 keys, with at "
        "most 50 values each.",
    }
