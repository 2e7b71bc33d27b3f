"""Chat webhooks and their deliveries."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.notifications.services.chat.deliveries import EVENTS
from apps.tenancy.api.serializers.webhooks import AttemptSerializer
from apps.tenancy.message_types import MessageType
from byteor_cloud.api.fields import IdField, ModelSerializer, NameField, TextField


class ChatWebhookSerializer(ModelSerializer):
    name = NameField()
    url = TextField(write_only=True, max_length=2000)
    events = serializers.ListField(
        child=serializers.ChoiceField(EVENTS), allow_empty=False, min_length=1, max_length=len(EVENTS)
    )
    enabled = serializers.BooleanField(required=False)
    project_id = IdField(required=False, allow_null=True)
    environment_id = IdField(required=False, allow_null=True)

    descriptions = {
        "name": "The name of the chat webhook, for example the name of the channel.",
        "format": "The kind of chat server, which determines the format of the messages.",
        "url": "The URL of the chat server's incoming webhook. It contains a secret of that server, so it is stored "
        "encrypted and never returned. It must use HTTPS, unless the operator permits webhooks to private networks.",
        "host": "The host of the URL, with the port if it is not the default port.",
        "events": "The events about which messages are sent. `*` stands for all events. `webhook.failing` and "
        "`quota.near` are sent only to chat webhooks of the whole organization, and `key.expires` is not sent for user "
        "tokens.",
        "enabled": "Whether the chat webhook receives messages.",
        "disabled_reason": "Why the service disabled the chat webhook. Empty if the service did not disable it or "
        "if it was enabled again.",
        "failing_since": "When the attempts began to fail. Null if no attempt has failed since the last success, or "
        "since the chat webhook was enabled or its URL was changed.",
        "project_id": "The id of the project to which the chat webhook is limited. Null if it is not limited to a "
        "project. Defaults to the project of `environment_id`. It cannot be changed after creation.",
        "environment_id": "The id of the environment to which the chat webhook is limited. Null if it is not "
        "limited to an environment. It cannot be changed after creation.",
    }

    class Meta:
        model = ChatWebhook
        fields = [
            "id", "name", "format", "url", "host", "events", "enabled", "disabled_reason", "project_id",
            "environment_id", "failing_since", "created_at", "updated_at",
        ]  # fmt: skip

    def validate_project_id(self, value: Any) -> Any:
        """Reject a change of the project."""
        return self._keep("project_id", value)

    def validate_environment_id(self, value: Any) -> Any:
        """Reject a change of the environment."""
        return self._keep("environment_id", value)

    def _keep(self, name: str, value: Any) -> Any:
        if isinstance(self.instance, ChatWebhook) and value != getattr(self.instance, name):
            noun = name.removesuffix("_id")
            detail = f"The {noun} is fixed at creation and cannot be changed. Create another chat webhook."
            raise serializers.ValidationError(detail, code="immutable")
        return value


class ChatAttemptSerializer(AttemptSerializer):
    descriptions = {
        **AttemptSerializer.descriptions,
        "error": "Why no response was received: `forbidden_address`, `dns`, `tls`, `timeout`, `connection`, "
        "`protocol` or `master_key`. If the chat server refused the message: its error code or message, at most 100 "
        "characters. If the response contains neither: `unexpected_response` for a 2xx status, and otherwise empty. "
        "`obsolete` if the message was not sent because it no longer applied or was older than 3 days. `restored` if "
        "the delivery was pending in a backup that was restored. Also empty if the message was accepted.",
    }


class ChatDeliverySerializer(ModelSerializer):
    event = serializers.ChoiceField(list(MessageType), source="event.type", read_only=True, allow_null=True)
    text = serializers.CharField(source="event.text", read_only=True, allow_null=True)
    attempts = ChatAttemptSerializer(many=True, read_only=True)

    descriptions = {
        "event": "The type of the event. Null for a test message.",
        "text": "A short text that says what happened. Null for a test message.",
        "status": "Whether the delivery is pending, was delivered, or failed permanently.",
        "attempts": "The latest attempts, oldest first. At most 50 are kept.",
        "next_attempt_at": "When the next attempt is due if the chat webhook is enabled. Null after the delivery has "
        "succeeded or failed permanently.",
        "finished_at": "When the message was delivered, or when the delivery failed permanently. Null while the "
        "delivery is pending.",
    }

    class Meta:
        model = ChatDelivery
        fields = ["id", "event", "text", "status", "attempts", "next_attempt_at", "finished_at", "created_at"]
