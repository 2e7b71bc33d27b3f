"""Audit events."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.tenancy.models import AuditEvent, AuditSeal
from byteor_cloud.api.fields import ModelSerializer


class AuditActorSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(source="actor_kind")
    id = serializers.CharField(source="actor_id")
    display = serializers.CharField(source="actor_display")
    descriptions = {
        "kind": "The kind of actor: a user, a key, an agent, or the system.",
        "id": "The actor's id.",
        "display": "The actor's name or e-mail address when the event happened.",
    }


class AuditScopeSerializer(serializers.Serializer[Any]):
    organization_id = serializers.UUIDField(allow_null=True)
    project_id = serializers.UUIDField(allow_null=True)
    environment_id = serializers.UUIDField(allow_null=True)
    kind = serializers.CharField(source="resource_kind")
    id = serializers.CharField(source="resource_id")
    descriptions = {
        "kind": "The kind of resource.",
        "id": "The resource's id.",
        "project_id": "The project that the resource belongs to. Null if it belongs to no project.",
        "environment_id": "The environment that the resource belongs to. Null if it belongs to no environment.",
        "organization_id": "The organization that the resource belongs to. Null if it belongs to no organization.",
    }


class AuditSealSerializer(ModelSerializer):
    descriptions = {
        "seq": "The event's position in the chain, counted from 1.",
        "prev_hash": "The hash of the previous event in the chain.",
        "hash": "The SHA-256 of this event and `prev_hash`.",
    }

    class Meta:
        model = AuditSeal
        fields = ["seq", "prev_hash", "hash"]


class AuditEventSerializer(ModelSerializer):
    actor = AuditActorSerializer(source="*")
    resource_scope = AuditScopeSerializer(source="*")
    outcome = serializers.ChoiceField(["success", "denied", "error"])
    changes = serializers.DictField()
    seal = AuditSealSerializer(allow_null=True, default=None)

    descriptions = {
        "timestamp": "When the event happened.",
        "actor": "Who caused the event.",
        "action": "What the actor did, such as `deployment.create`.",
        "outcome": "Whether the action succeeded, was denied, or ended in an error.",
        "resource_scope": "The resource that the action affected.",
        "request_id": "The `X-Request-ID` of the request. Null if no request caused the event.",
        "ip": "The IP address of the client.",
        "changes": "What changed, by field. Secrets are left out. If the changes take more than 8 KiB, the longest "
        "values are replaced by their `size` in bytes and their `sha256`, both of the value's JSON without spaces and "
        "with sorted keys. What an organization key repeats within a minute becomes a single event after that minute: "
        "`count` says how often it was repeated, and `last` has the last values. `exportAuditEvents` has all of it.",
        "seal": "The event's place in the ledger. Null until the event is sealed, a few seconds after it happened.",
    }

    class Meta:
        model = AuditEvent
        fields = [
            "id", "timestamp", "actor", "action", "outcome", "resource_scope", "request_id", "ip", "changes", "seal",
        ]  # fmt: skip
