"""After a restore: end sessions, one-time links and unfinished sign-ins, and drop pending messages and deliveries."""

from __future__ import annotations

from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import Q
from django.utils import timezone
from social_django.models import Code, Partial

from apps.tenancy.message_types import EventOutcome
from apps.tenancy.models import Delivery, DeviceSignIn, Host, MessageEvent, SignInLink, WebhookDelivery
from apps.tenancy.services.webhooks.attempts import format_time
from apps.tenancy.webhook_events import Outcome

RESTORED = "restored"  # the error of deliveries that were pending in the backup


def settle() -> dict[str, int]:
    """End sessions, one-time links and unfinished sign-ins, and drop messages that were probably sent already.

    The links may have been used, and the messages sent, after the backup was made. Also deletes the rows of the hosts
    that ran the installation then. Returns how many sessions, links and webhook deliveries this affected. Call this in
    a transaction.
    """
    now = timezone.now()
    sessions, _ = Session.objects.all().delete()
    links = SignInLink.objects.filter(used_at=None, expires_at__gt=now).update(expires_at=now)
    DeviceSignIn.objects.all().delete()
    Partial.objects.all().delete()
    Code.objects.all().delete()
    Host.objects.all().delete()
    unsent = Q(outcome=EventOutcome.PENDING) | Q(outcome=EventOutcome.GROUPED, summary=None)
    MessageEvent.objects.filter(unsent).update(outcome=EventOutcome.OBSOLETE, handled_at=now)
    return {
        "sessions_ended": sessions,
        "links_expired": links,
        "webhook_deliveries_dropped": drop_deliveries(WebhookDelivery),
    }


def drop_deliveries(model: type[Delivery]) -> int:
    """Set all pending deliveries to failed, with the error ``restored``. Returns their number."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {model._meta.db_table} SET status = %s, next_attempt_at = NULL, finished_at = now(),"  # noqa: S608  the name of a table
            " attempts = attempts || jsonb_build_array(jsonb_build_object("
            "'at', %s::text, 'status', NULL, 'error', %s::text, 'duration_ms', 0)) WHERE status = %s",
            [Outcome.FAILED, format_time(timezone.now()), RESTORED, Outcome.PENDING],
        )
        return int(cursor.rowcount)
