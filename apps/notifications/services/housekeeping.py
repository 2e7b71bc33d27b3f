"""Delete old events, notifications and deliveries (see docs/tables.md)."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection
from django.utils import timezone

from apps.notifications.models import ChatDelivery
from apps.tenancy.models import MessageEvent
from byteor_cloud.database.deletion import delete_in_batches
from byteor_cloud.ids import smallest_uuid7

KEPT_FOR = timedelta(days=30)
KEPT_FOR_EACH_PERSON = 200
"""How many of a person's newest notifications are kept. Older ones are kept only while their e-mail is pending."""
_DELETE_MORE = """
DELETE FROM notifications_notification WHERE mail_due_at IS NULL AND id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY id DESC) AS number FROM notifications_notification
    ) AS numbered WHERE number > %s
)
"""


def delete_old() -> None:
    """Delete events, their notifications, and deliveries to chat webhooks after 30 days.

    Also deletes all but the newest ``KEPT_FOR_EACH_PERSON`` notifications of each person, except for those whose
    e-mail is pending.
    """
    first_kept = smallest_uuid7(timezone.now() - KEPT_FOR)
    delete_in_batches(ChatDelivery.objects.filter(pk__lt=first_kept))
    delete_in_batches(MessageEvent.objects.filter(pk__lt=first_kept))
    with connection.cursor() as cursor:
        cursor.execute(_DELETE_MORE, [KEPT_FOR_EACH_PERSON])
