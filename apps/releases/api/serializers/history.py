"""What agents ran and run."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class RunningIntervalSerializer(serializers.Serializer[Any]):
    """A time in which an agent ran one bundle."""

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
        "agent_name": "The agent's present name.",
        "from": "When a heartbeat first said so.",
        "to": "When a heartbeat said something else. Null while none did, also after the agent was decommissioned.",
        "confirmed_until": "When a heartbeat last said so.",
        "deployment_id": "The deployment that built the bundle. If this environment has none, the one that the agent "
        "named. Null if this environment does not have that one either.",
        "bundle_hash": "The SHA-256 of the deploy bundle.",
        "spec_hash": "The spec hash that the agent reported.",
        "version_id": "The version of the deployment.",
        "config_bundle_id": "The config bundle of the deployment.",
        "approval_id": "The approval that permitted the deployment. Null if it needed none.",
        "approved_by": "The e-mail addresses of the people who approved.",
    }

    def get_fields(self) -> dict[str, Any]:
        """Return the fields with ``from``, which Python does not accept as the name of an attribute."""
        fields: dict[str, Any] = super().get_fields()
        first = {name: fields.pop(name) for name in ("agent_id", "agent_name")}
        return {**first, "from": serializers.DateTimeField(source="started_at"), **fields}


class VersionCountSerializer(serializers.Serializer[Any]):
    version_id = serializers.UUIDField(allow_null=True)
    number = serializers.IntegerField(allow_null=True)
    pipeline = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    descriptions = {
        "version_id": "The version. Null for bundles that were not built in this environment.",
        "number": "The number of the version.",
        "pipeline": "The pipeline of the version.",
        "count": "How many agents run it.",
    }


class AgentSummarySerializer(serializers.Serializer[Any]):
    """How many agents the environment has, in all and by what lists filter by."""

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
        "total": "All enrolled agents.",
        "liveness": "The number of agents by liveness.",
        "drifted": "The number of agents that run something else than they should.",
        "cloned": "The number of agents that are suspected to be clones.",
        "status": "The number of agents by the status in their last heartbeat. Those that sent none are not counted.",
        "versions": "The number of agents by running version, the most frequent first: at most 50. Agents that run "
        "nothing are not counted.",
        "labels": "The number of agents by label key and value, the most frequent first: at most 50 values of a key, "
        "and at most 200 keys.",
    }
