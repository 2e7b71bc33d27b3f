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
        "kind": "The kind of actor: `user`, `organization_key`, `enrollment_token`, `agent` or `system`.",
        "id": "The actor's id. For `system`, the name of a job group, of a service or of a command.",
        "display": "The actor's name or e-mail address at the time of the event.",
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
        "project_id": "The id of the project that the resource belongs to. Null if it belongs to no project.",
        "environment_id": "The id of the environment that the resource belongs to. Null if it belongs to no "
        "environment.",
        "organization_id": "The id of the organization that the resource belongs to. Null if it belongs to no "
        "organization.",
    }


class AuditSealSerializer(ModelSerializer):
    descriptions = {
        "seq": "The event's position in the chain, counted from 1.",
        "prev_hash": "The hash of the previous event in the chain. For the first event, `sha256:` and 64 zeros.",
        "hash": "The SHA-256 of the event, `seq` and `prev_hash`.",
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
        "timestamp": "When the event was recorded.",
        "actor": "Who caused the event.",
        "action": "The action, such as `deployment.create`.",
        "outcome": "Whether the action succeeded, was denied, or failed with an error.",
        "resource_scope": "The resource that the action affected. For a denial, the `kind` is `credential`, and the "
        "`id` is the actor's id.",
        "request_id": "The `X-Request-ID` of the request that caused the event. Empty if it was not recorded.",
        "ip": "The IP address of the client. Null if it was not recorded.",
        "changes": "The changes by field. Secrets are omitted. If the changes exceed 8 KiB, the longest values are "
        "replaced by the `size` in bytes and the `sha256` of their JSON without spaces and with sorted keys. If that "
        "is not enough, all changes together are replaced in this way. If an organization key repeats an event in the "
        "same minute, all repetitions are recorded as one event after that minute, with their `count` and the `last` "
        "values. `exportAuditEvents` returns the changes even if they are too large for a list.",
        "seal": "The event's position in the ledger. Null until the event is sealed, usually within a few seconds.",
    }

    class Meta:
        model = AuditEvent
        fields = [
            "id", "timestamp", "actor", "action", "outcome", "resource_scope", "request_id", "ip", "changes", "seal",
        ]  # fmt: skip
