"""Webhooks, their deliveries, and the bodies of webhook messages."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.tenancy.models import Webhook, WebhookDelivery
from apps.tenancy.webhook_events import PATTERNS, TYPES
from byteor_cloud.api.fields import IdField, JSONObjectField, ModelSerializer, StrictSerializer, TextField


class WebhookSerializer(ModelSerializer):
    url = TextField(max_length=2000)
    events = serializers.ListField(
        child=serializers.ChoiceField(PATTERNS), allow_empty=False, min_length=1, max_length=100
    )
    description = TextField(required=False, allow_blank=True, max_length=200)
    enabled = serializers.BooleanField(required=False)
    project_id = IdField(required=False, allow_null=True)
    environment_id = IdField(required=False, allow_null=True)

    descriptions = {
        "url": "The URL that receives the events. It must use HTTPS, unless the operator permits webhooks to private "
        "networks.",
        "events": (
            "The event types to send. A type that ends in `.*` stands for all events of that kind, and `*` for all "
            "events."
        ),
        "description": "The purpose of the webhook.",
        "enabled": "Whether the webhook receives events.",
        "disabled_reason": "Why the service disabled the webhook. Empty if it did not, or if the webhook was enabled "
        "again.",
        "project_id": "The id of the only project whose events are sent. Null if the webhook is not limited to a "
        "project.",
        "environment_id": (
            "The id of the only environment whose events are sent. Null if the webhook is not limited to an "
            "environment."
        ),
        "failing_since": (
            "When the attempts began to fail. Null if no attempt has failed since the last success, or since the "
            "webhook was enabled."
        ),
        "previous_secret_until": (
            "The time until which deliveries are also signed with the previous secret, 24 hours after the last "
            "rotation. Null if the secret was never rotated."
        ),
    }

    class Meta:
        model = Webhook
        fields = [
            "id", "url", "events", "description", "enabled", "disabled_reason", "project_id", "environment_id",
            "failing_since", "previous_secret_until", "created_at", "updated_at",
        ]  # fmt: skip


class AttemptSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField()
    duration_ms = serializers.IntegerField()
    descriptions = {
        "at": "When the attempt was made. If `error` is `restored`, when the backup was restored.",
        "status": "The status code of the response. Null if there was no response.",
        "error": (
            "Why no response was received: `forbidden_address`, `dns`, `tls`, `timeout`, `connection`, `protocol`, "
            "`master_key`, or `restored` if the delivery was pending in a backup that was restored. Empty if there was "
            "a response."
        ),
        "duration_ms": "The duration of the attempt in milliseconds.",
    }


class WebhookDeliverySerializer(ModelSerializer):
    event_id = serializers.UUIDField(read_only=True)
    type = serializers.CharField(read_only=True)
    attempts = AttemptSerializer(many=True, read_only=True)

    descriptions = {
        "event_id": "The id of the event, sent as `webhook-id`.",
        "type": "The type of the event.",
        "status": "Whether the delivery is pending, was delivered, or failed permanently.",
        "attempts": "The latest attempts, oldest first. At most 50 are kept.",
        "next_attempt_at": "When the next attempt is due if the webhook is enabled. Null after the delivery has "
        "succeeded or failed permanently.",
        "finished_at": (
            "When the event was delivered, or when the delivery failed permanently. Null while the delivery is pending."
        ),
    }

    class Meta:
        model = WebhookDelivery
        fields = [
            "id", "event_id", "type", "status", "attempts", "next_attempt_at", "finished_at", "created_at",
        ]  # fmt: skip


class EventResourceSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["deployment", "approval", "regression", "webhook"])
    id = serializers.CharField()
    url = serializers.CharField()
    descriptions = {
        "kind": "The kind of resource.",
        "id": "The resource's id.",
        "url": "The URL of the resource in the API. If the installation has no public base URL, only the path.",
    }


class EventActorSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField()
    display = serializers.CharField()
    descriptions = {
        "kind": "The kind of actor: `user`, `organization_key`, `enrollment_token`, `agent` or `system`.",
        "display": "The actor's name or e-mail address.",
    }


class EventSerializer(StrictSerializer):
    """The body of a webhook message: one event."""

    id = serializers.UUIDField()
    type = serializers.ChoiceField([*TYPES, "ping"])
    created_at = serializers.DateTimeField()
    organization_id = serializers.UUIDField()
    project_id = serializers.UUIDField(allow_null=True)
    environment_id = serializers.UUIDField(allow_null=True)
    resource = EventResourceSerializer()
    actor = EventActorSerializer()
    changes = JSONObjectField()
    descriptions = {
        "id": "The audit event's id, also sent as `webhook-id`. It stays the same when the event is sent again.",
        "type": "The type of the event.",
        "created_at": "When the event was recorded.",
        "project_id": "The id of the project that the resource belongs to. Null if it belongs to no project.",
        "environment_id": "The id of the environment that the resource belongs to. Null if it belongs to no "
        "environment.",
        "resource": "The resource that the event is about.",
        "actor": "Who caused the event.",
        "changes": "The changes by field.",
    }
