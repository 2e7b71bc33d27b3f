"""Audit events."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.tenancy.api.fields import ModelSerializer
from apps.tenancy.models import (
    AuditEvent,
    AuditSeal,
)


class AuditActorSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(source="actor_kind")
    id = serializers.CharField(source="actor_id")
    display = serializers.CharField(source="actor_display")
    descriptions = {
        "kind": "The kind of actor: a user, a key, an agent, or the system.",
        "id": "The actor's id.",
        "display": "The actor's name or e-mail address at that time.",
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
        "project_id": "Its project. Null if it belongs to none.",
        "environment_id": "Its environment. Null if it belongs to none.",
        "organization_id": "Its organization. Null if it belongs to none.",
    }


class AuditSealSerializer(ModelSerializer):
    descriptions = {
        "seq": "The position in the chain, from 1.",
        "prev_hash": "The hash of the event before it.",
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
        "timestamp": "When it happened.",
        "actor": "Who did it.",
        "action": "What was done, such as `deployment.create`.",
        "outcome": "Whether it succeeded, was denied, or ended in an error.",
        "resource_scope": "What it was done to.",
        "request_id": "The `X-Request-ID` of the request. Null for work of the system.",
        "ip": "The client's address.",
        "changes": "What changed, by field. Secrets are left out.",
        "seal": "The event's place in the ledger. Null until it is sealed, a few seconds after it happened.",
    }

    class Meta:
        model = AuditEvent
        fields = [
            "id", "timestamp", "actor", "action", "outcome", "resource_scope", "request_id", "ip", "changes", "seal",
        ]  # fmt: skip
