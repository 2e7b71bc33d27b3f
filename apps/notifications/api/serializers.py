"""Notifications and notification settings."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from apps.notifications.models import Notification, NotificationSettings
from apps.notifications.services import choices
from apps.tenancy.api.serializers.settings import TIMING, TimingsField, check_events, check_timings
from apps.tenancy.message_types import CHOOSABLE, DESCRIPTIONS, MessageType
from byteor_cloud.api.fields import IdField, ModelSerializer, StrictSerializer
from byteor_cloud.patterns import matcher

MAX_ENVIRONMENTS = 200
"""The maximum number of choices for one event. Each is for one environment or, with ``*``, for all others."""
ENVIRONMENT_OR_ANY = r"^(\*|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$"
_is_environment_or_any = matcher(ENVIRONMENT_OR_ANY)
MAX_MARKED = 200
"""The maximum number of notifications that one request marks by id."""


class NotificationSerializer(ModelSerializer):
    event = serializers.ChoiceField(list(MessageType), source="event.type", read_only=True)
    text = serializers.CharField(source="event.text", read_only=True)
    path = serializers.CharField(source="event.path", read_only=True)
    count = serializers.IntegerField(source="event.count", read_only=True)
    organization_id = serializers.UUIDField(source="event.organization_id", read_only=True)
    project_id = serializers.UUIDField(source="event.project_id", read_only=True, allow_null=True)
    environment_id = serializers.UUIDField(source="event.environment_id", read_only=True, allow_null=True)
    resource_kind = serializers.CharField(source="event.resource_kind", read_only=True)
    resource_id = serializers.CharField(source="event.resource_id", read_only=True)

    descriptions = {
        "event": "The type of the event.",
        "text": "A short text that says what happened.",
        "path": "The path of the console page to which the notification links.",
        "count": "The number of events that the notification covers. Greater than 1 only if repeated events were "
        "grouped.",
        "organization_id": "The id of the organization.",
        "project_id": "The id of the project. Null if the event belongs to no project.",
        "environment_id": "The id of the environment. Null if the event belongs to no environment.",
        "resource_kind": "The kind of the resource that the event is about.",
        "resource_id": "The id of the resource that the event is about.",
        "read_at": "When the notification was marked as read. Null while it is unread.",
    }

    class Meta:
        model = Notification
        fields = [
            "id", "event", "text", "path", "count", "organization_id", "project_id", "environment_id", "resource_kind",
            "resource_id", "read_at", "created_at",
        ]  # fmt: skip


class MarkNotificationsSerializer(StrictSerializer):
    read = serializers.BooleanField()
    ids = serializers.ListField(child=IdField(), required=False, max_length=MAX_MARKED)
    descriptions = {
        "read": "Whether to mark the notifications as read (true) or unread (false).",
        "ids": "The ids of the notifications to mark. If omitted, all of the caller's notifications are marked.",
    }


class MarkedNotificationsSerializer(serializers.Serializer[Any]):
    changed = serializers.IntegerField()
    unread = serializers.IntegerField()
    descriptions = {
        "changed": "The number of notifications that were changed.",
        "unread": "The number of unread notifications, at most 50.",
    }


_CHOICES = {
    "type": "object",
    "properties": {
        str(each): {
            "type": "object",
            "description": DESCRIPTIONS[each],
            "maxProperties": MAX_ENVIRONMENTS,
            "propertyNames": {"pattern": ENVIRONMENT_OR_ANY},
            "additionalProperties": TIMING,
        }
        for each in CHOOSABLE
    },
    "additionalProperties": False,
}


@extend_schema_field(_CHOICES)
class ChoicesField(serializers.Field[Any, Any, Any, Any]):
    """A person's choices: for each event, when e-mails are sent, by environment id or ``*`` for all others."""

    def to_representation(self, value: Any) -> Any:
        """Return the choices unchanged, because they already are JSON."""
        return value

    def to_internal_value(self, data: Any) -> dict[str, dict[str, str]]:
        """Return the checked choices. Raises ValidationError."""
        return {event: _check_choices(event, chosen) for event, chosen in check_events(data).items()}


def _check_choices(event: str, chosen: Any) -> dict[str, str]:
    if not isinstance(chosen, dict):
        raise serializers.ValidationError({event: [ErrorDetail("Must be an object.", code="invalid")]})
    if len(chosen) > MAX_ENVIRONMENTS:
        detail = f"Must have at most {MAX_ENVIRONMENTS} members."
        raise serializers.ValidationError({event: [ErrorDetail(detail, code="too_many")]})
    for key in chosen:
        if not _is_environment_or_any(key):
            detail = "The key must be the id of an environment, or `*`."
            raise serializers.ValidationError({event: {key[:40]: [ErrorDetail(detail, code="invalid")]}})
    try:
        return check_timings(chosen)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({event: error.detail}) from None


class NotificationSettingsSerializer(StrictSerializer):
    """The caller's notification settings: when to send e-mails about events."""

    id = serializers.UUIDField(source="user_id", read_only=True)
    settings = ChoicesField(source="choices")
    defaults = serializers.SerializerMethodField()
    mail_configured = serializers.SerializerMethodField()
    descriptions = {
        "id": "The id of the person whose settings these are.",
        "settings": "The caller's choices: for each event, an object that maps ids of environments to `off`, `now` or "
        "`daily`. The key `*` stands for all other environments and for events outside environments. An update "
        "replaces the choices for the events in the body, and keeps all others. An empty object removes the choices "
        "for an event.",
        "defaults": "For each event, when e-mails are sent to people who have not chosen, unless their organization "
        "has other defaults. The person who requested a deployment gets its e-mails about `rollout.stopped` and "
        "`rollout.rolled_back` immediately, unless this person or the organization has chosen otherwise.",
        "mail_configured": "Whether the installation can send e-mails. If it cannot, notifications appear only in the "
        "console and in the API.",
    }

    @extend_schema_field(TimingsField)
    def get_defaults(self, row: NotificationSettings) -> dict[str, str]:
        """Return when e-mails about each event are sent by default."""
        return {event: choices.default_timing(event) for event in CHOOSABLE}

    def get_mail_configured(self, row: NotificationSettings) -> bool:
        """Return whether a mail server is configured."""
        return django_settings.CONFIG.smtp_url is not None
