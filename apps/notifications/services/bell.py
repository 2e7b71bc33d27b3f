"""Read and mark a person's notifications, for the API and the console's bell."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from django.utils import timezone

from apps.notifications.models import Notification, NotificationQuerySet
from apps.tenancy.models import User

SHOWN = 50
"""The maximum number of notifications on the page that the bell opens."""


def notifications_of(user: User) -> NotificationQuerySet:
    """Return the person's notifications with their events, except those that the person may no longer see."""
    return Notification.objects.filter(user=user).visible().select_related("event__environment", "event__project")


def count_unread(user: User) -> int:
    """Return the number of unread notifications, at most ``SHOWN``."""
    return notifications_of(user).filter(read_at=None).order_by()[:SHOWN].count()


def mark(user: User, ids: Collection[UUID] | None, *, is_read: bool) -> int:
    """Mark the person's notifications as read or unread (``ids`` None: all). Returns how many were changed.

    Ids of other people's notifications are ignored.
    """
    rows = Notification.objects.filter(user=user, read_at__isnull=is_read)
    if ids is not None:
        rows = rows.filter(pk__in=ids)
    return rows.update(read_at=timezone.now() if is_read else None)
