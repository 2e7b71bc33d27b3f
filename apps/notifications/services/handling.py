"""Handle new events: find out who is told what, and store it. Sending is up to ``mail`` and ``chat``."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from apps.notifications.jobs import HandleEvents
from apps.notifications.models import Notification
from apps.notifications.services import audience, choices, limits, wording
from apps.notifications.services.chat import deliveries
from apps.tenancy.message_types import EventOutcome, MessageType, Timing
from apps.tenancy.models import MessageEvent
from byteor_cloud.worker.jobs import enqueue

MAX_JOB_S = 10
# A person gets at most so many e-mails in this time. Later events are collected, and sent together in one e-mail.
MOST_MAILS, MAIL_WINDOW = 5, timedelta(minutes=10)
DAILY_AT_HOUR = 8  # UTC, because the time zones of people are unknown


def enqueue_pending() -> None:
    """Enqueue a job for each organization with new events, unless such a job is already waiting."""
    pending = MessageEvent.objects.filter(outcome=EventOutcome.PENDING).order_by()
    for organization_id in pending.values_list("organization_id", flat=True).distinct():
        key = f"message_events:{organization_id}"
        enqueue(HandleEvents(organization_id=str(organization_id)), organization=organization_id, serial=key, once=key)


def handle_pending(organization_id: UUID) -> None:
    """Handle the organization's new events, oldest first, until none is left or the time of the job is over."""
    deadline = monotonic() + MAX_JOB_S
    while monotonic() < deadline and _handle_next(organization_id):
        pass


@transaction.atomic
def _handle_next(organization_id: UUID) -> bool:
    """Handle the oldest new event. Returns False if there is none."""
    rows = MessageEvent.objects.filter(organization=organization_id, outcome=EventOutcome.PENDING)
    rows = rows.select_related("organization", "project", "environment").order_by("pk")
    event = rows.select_for_update(of=("self",), no_key=True, skip_locked=True).first()
    if event is None:
        return False
    event.handled_at = timezone.now()
    content = None if _is_deleted(event) else wording.describe(event)
    if content is None:
        event.outcome = EventOutcome.OBSOLETE
    elif limits.is_exceeded(event):
        event.outcome = EventOutcome.GROUPED
    else:
        event.outcome, event.text, event.path = EventOutcome.TOLD, content.sentence[:500], content.path
        _notify(event)
        deliveries.create_deliveries(event)
    event.save(update_fields=["outcome", "text", "path", "handled_at"])
    return True


def _is_deleted(event: MessageEvent) -> bool:
    return any(row is not None and row.deleted_at is not None for row in (event.project, event.environment))


def _notify(event: MessageEvent) -> None:
    """Create the notifications of the people to tell."""
    people = sorted(audience.find_people(event))
    timings = choices.find_timings(event, people, requester=audience.find_requester(event))
    at = _next_mails([user_id for user_id in people if timings[user_id] is Timing.NOW], event)
    daily = _next_daily(timezone.now())
    due = {Timing.OFF: dict[UUID, datetime](), Timing.NOW: at, Timing.DAILY: dict.fromkeys(people, daily)}
    notifications = [
        Notification(
            user_id=user_id, event=event, mail=timings[user_id], mail_due_at=due[timings[user_id]].get(user_id)
        )
        for user_id in people
    ]
    Notification.objects.bulk_create(notifications, batch_size=1000, ignore_conflicts=True)


def _next_mails(user_ids: Collection[UUID], event: MessageEvent) -> dict[UUID, datetime]:
    """Return when the next e-mail to each of these people is due: now, unless they got ``MOST_MAILS`` lately."""
    now = timezone.now()
    if event.type == MessageType.INVITATION:
        return dict.fromkeys(user_ids, now)
    recent = Notification.objects.filter(user__in=user_ids, mailed_at__gt=now - MAIL_WINDOW).order_by()
    counts = dict(recent.values_list("user").annotate(mails=Count("mailed_at", distinct=True)))
    return {user_id: now + MAIL_WINDOW if counts.get(user_id, 0) >= MOST_MAILS else now for user_id in user_ids}


def _next_daily(now: datetime) -> datetime:
    today = now.replace(hour=DAILY_AT_HOUR, minute=0, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)


def summarize_grouped() -> None:
    """Create the events that stand for groups of repeated events."""
    limits.summarize()
