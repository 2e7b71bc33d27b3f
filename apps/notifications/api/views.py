"""The caller's notifications and notification settings."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from apps.notifications.api.serializers import (
    MarkedNotificationsSerializer,
    MarkNotificationsSerializer,
    NotificationSerializer,
    NotificationSettingsSerializer,
)
from apps.notifications.models import Notification, NotificationSettings
from apps.notifications.services import bell, choices
from apps.tenancy.api.base import SIGNED_IN, ApiViewSet
from apps.tenancy.credentials import Family
from apps.tenancy.message_types import MessageType
from apps.tenancy.models import User
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import ListModelMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, flag_parameter
from byteor_cloud.errors import Conflict, PreconditionFailed


class _OwnViewSet(ApiViewSet):
    """Base of the views of the calling person's own data."""

    tag = Tag.AUTHENTICATION
    credentials = (Family.USER,)

    @property
    def person(self) -> User:
        """The calling person."""
        user = self.principal.user
        assert user is not None  # noqa: S101  for mypy: ``credentials`` accepts only user tokens
        return user


class NotificationViewSet(ListModelMixin, _OwnViewSet):
    """The caller's notifications."""

    queryset = Notification.objects.all()
    serializer_class = NotificationSerializer
    filters = {
        **BY_CREATION,
        "event": choice_parameter(MessageType, "event__type"),
        "unread": flag_parameter(
            "read_at__isnull",
            description="If true, returns only unread notifications. If false, returns only read notifications.",
        ),
    }
    operations = {
        "list": Operation(
            "listNotifications",
            SIGNED_IN,
            "List your notifications",
            "Returns the caller's notifications, newest first. The newest 200 are kept, for up to 30 days. "
            "Notifications about resources that the caller can no longer see are not returned.",
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return bell.notifications_of(self.person)

    @Operation(
        "markNotifications",
        SIGNED_IN,
        body=MarkNotificationsSerializer,
        responses={200: MarkedNotificationsSerializer},
        errors=(Conflict,),
        example={"read": True},
    )
    def mark(self, request: Request) -> Response:
        """Mark your notifications as read or unread.

        Marks the notifications with the ids in the body, or all of the caller's notifications if the body does not
        contain `ids`. Other people's notifications and unknown ids are ignored.
        """
        data = self.validated(request)
        changed = bell.mark(self.person, data.get("ids"), is_read=data["read"])
        body = {"changed": changed, "unread": bell.count_unread(self.person)}
        return Response(MarkedNotificationsSerializer(body).data)


class NotificationSettingsViewSet(_OwnViewSet):
    """The caller's notification settings."""

    queryset = NotificationSettings.objects.none()
    serializer_class = NotificationSettingsSerializer

    def get_object(self) -> NotificationSettings:
        return choices.read_settings(self.person)

    @Operation("getNotificationSettings", SIGNED_IN)
    def retrieve(self, request: Request) -> Response:
        """Get your notification settings.

        Returns the caller's own choices and the built-in defaults.
        """
        return self.represent(self.get_object())

    @Operation(
        "updateNotificationSettings",
        SIGNED_IN,
        body=NotificationSettingsSerializer,
        errors=(Conflict, PreconditionFailed),
        example={"settings": {"rollout.stopped": {"*": "now"}}},
    )
    def update(self, request: Request) -> Response:
        """Update your notification settings.

        Replaces the caller's choices for the events in the body, and keeps the choices for all other events.
        """
        chosen = self.validated(request)["choices"]
        expected = self.expected_revision
        return self.represent(choices.save_settings(self.person, chosen, actor=self.actor, expected_revision=expected))
