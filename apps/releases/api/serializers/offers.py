"""Serializers of offers to agents, and of agents' reports."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.fleet.api.serializers import OfferSerializer
from apps.releases.api.serializers.deployments import UnmetSettingSerializer
from byteor_cloud.api.fields import HashField, IdField, JSONObjectField, StrictSerializer, TextField


class AgentTuningSerializer(StrictSerializer):
    """How much of the tuning profile the agent could apply. Unknown keys are ignored."""

    refuses_unknown = False
    profile = TextField(max_length=200, required=False)
    applied = JSONObjectField(required=False)
    # The stubs do not know that ``many=True`` passes ``max_length`` to the list serializer.
    degraded = UnmetSettingSerializer(many=True, required=False, max_length=100)  # type: ignore[call-arg]
    failed = UnmetSettingSerializer(many=True, required=False, max_length=100)  # type: ignore[call-arg]
    descriptions = {
        "profile": "The name of the tuning profile.",
        "applied": "The settings that the agent applied.",
        "degraded": "The settings that the agent applied in part.",
        "failed": "The settings that the agent could not apply.",
    }


class ReportSerializer(StrictSerializer):
    """An agent's report on its offer."""

    deployment_id = IdField()
    status = serializers.ChoiceField(["downloading", "activating", "active", "failed", "rolled_back"])
    bundle_hash = HashField()
    detail = TextField(required=False, allow_blank=True, max_length=4000)
    tuning = AgentTuningSerializer(required=False)
    boot_id = TextField(required=False, allow_null=True, allow_blank=True, max_length=64)
    descriptions = {
        "boot_id": "The id of the agent's process, new at each start. The control plane uses it to detect that two "
        "machines use the same key. Null if unknown.",
        "deployment_id": "The `deployment_id` of the offer.",
        "status": "The agent's progress with the offer.",
        "bundle_hash": "The `bundle_hash` of the offer.",
        "detail": "More about the progress, such as the reason for a failure.",
        "tuning": "How much of the tuning profile the agent could apply.",
    }


class ReportAnswerSerializer(serializers.Serializer[Any]):
    accepted = serializers.BooleanField()
    descriptions = {
        "accepted": (
            "Always true. A report on an offer that is not current, or with a status that cannot follow the agent's "
            "progress, is recorded but returns 409. The repetition of an accepted report on the current offer is "
            "ignored and returns 200."
        ),
    }


class AttestationSerializer(serializers.Serializer[Any]):
    sha256 = serializers.CharField()
    size = serializers.IntegerField()
    url = serializers.CharField()
    descriptions = {
        "sha256": "The SHA-256 of the statement's DSSE envelope.",
        "size": "The size of the envelope in bytes.",
        "url": "The path of the envelope on this server.",
    }


class DesiredSerializer(OfferSerializer):
    bundle_size = serializers.IntegerField()
    envelope = serializers.DictField()
    attestations = AttestationSerializer(many=True)
    descriptions = {
        "attestations": "The signed statements about the deployment for which the bundle was built. One states why the "
        "replay gate let the deployment start. The other one states how the deployment's configuration was tested. "
        "This one is missing if the regression had been deleted. The list is empty if the gate was off.",
        "bundle_size": "The size of the deploy bundle in bytes.",
        "envelope": "The DSSE envelope with the signed in-toto statement about the deploy bundle.",
    }


class DesiredAnswerSerializer(serializers.Serializer[Any]):
    """What the agent should run, with the signed envelope of the bundle."""

    desired = DesiredSerializer(allow_null=True)
    descriptions = {
        "desired": "What the agent should run. Null if the agent has no offer, or while its offer is held after a "
        "restore.",
    }
