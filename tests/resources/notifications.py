"""Notifications, notification settings, and the events behind notifications."""

from __future__ import annotations

from apps.notifications.models import Notification
from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import MessageEvent
from tests.permissions import NoRole
from tests.resources import Call, Place, Resource, Table


def notification(place: Place) -> Notification:
    """Create notifications for the admin, project admin, operator, reviewer and viewer. Return that of the admin."""
    world = place.world
    event = MessageEvent.objects.create(
        organization=world.organization, project=place.environment.project, environment=place.environment,
        type=MessageType.ROLLOUT_FINISHED, resource_kind="deployment", resource_id=place.suffix, text="It runs.",
        outcome=EventOutcome.NOTIFIED,
    )  # fmt: skip
    people = (world.admin, world.project_admin, world.operator, world.reviewer, world.viewer)
    made = [Notification.objects.create(user=each.user, event=event) for each in people]
    return made[0]


RESOURCE = Resource(
    calls=(
        Call("listNotifications", "GET", "/api/v1/me/notifications", NoRole.PERSON),
        Call("markNotifications", "PATCH", "/api/v1/me/notifications", NoRole.PERSON),
        Call("getNotificationSettings", "GET", "/api/v1/me/notification-settings", NoRole.PERSON),
        Call("updateNotificationSettings", "PUT", "/api/v1/me/notification-settings", NoRole.PERSON),
    ),
    tables=(
        Table("tenancy.messageevent", short={"data": "a few names and numbers from the code that records the event"}),
        Table("notifications.notification"),
        Table(
            "notifications.notificationsettings",
            short={"choices": "at most 15 events with at most 200 environments each"},
        ),
    ),
    more=(notification,),
)
