"""Handle new events: find out who is told what, and store it. Sending is up to ``mail`` and ``chat``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Min
from django.utils import timezone

from apps.notifications.jobs import HandleEvents
from apps.notifications.models import Notification
from apps.notifications.services import audience, choices, limits, wording
from apps.notifications.services.chat import deliveries
from apps.notifications.services.mail import sending
from apps.tenancy.message_types import EventOutcome, MessageType, Timing
from apps.tenancy.models import MessageEvent
from byteor_cloud.worker.jobs import enqueue, is_outage

logger = structlog.get_logger(__name__)
MAX_JOB_S = 10
MAX_TRIES = 20  # attempts to handle an event, one every 3 seconds
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
    """Handle the organization's new events, oldest first, until none is left or the time of the job is over.

    An event that raises an error does not hold up the others. It is tried again by later jobs, ``MAX_TRIES`` times in
    total. At the end, the sending of the organization's due e-mails is enqueued. Do not call this in a transaction.
    """
    deadline, failed = monotonic() + MAX_JOB_S, set[UUID]()
    while monotonic() < deadline:
        rows = MessageEvent.objects.filter(organization=organization_id, outcome=EventOutcome.PENDING)
        event_id = rows.exclude(pk__in=failed).order_by("pk").values_list("pk", flat=True).first()
        if event_id is None:
            break
        try:
            _handle(event_id)
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception("message_event_not_handled", event_id=str(event_id))
            _count_failure(event_id)
            failed.add(event_id)
    sending.enqueue_due(organization_id)


@transaction.atomic
def _handle(event_id: UUID) -> None:
    """Decide what becomes of a new event, and create its notifications. Does nothing if it is no longer new."""
    rows = MessageEvent.objects.select_related("organization", "project", "environment")
    new = rows.filter(pk=event_id, outcome=EventOutcome.PENDING)
    event = new.select_for_update(of=("self",), no_key=True).first()
    if event is None:
        return
    event.handled_at = timezone.now()
    content = wording.describe(event)
    if content is None:
        event.outcome = EventOutcome.OBSOLETE
    elif limits.is_exceeded(event):
        event.outcome = EventOutcome.GROUPED
    else:
        event.outcome, event.text, event.path = EventOutcome.TOLD, content.sentence[:500], content.path
        _notify(event)
        deliveries.create_deliveries(event)
    event.save(update_fields=["outcome", "text", "path", "handled_at"])


@transaction.atomic
def _count_failure(event_id: UUID) -> None:
    """Count a failed attempt. After the last one, the event's outcome is ``failed``."""
    event = MessageEvent.objects.select_for_update(no_key=True).filter(pk=event_id).first()
    if event is None:
        return
    event.tries += 1
    if event.tries >= MAX_TRIES:
        event.outcome, event.handled_at = EventOutcome.FAILED, timezone.now()
    event.save(update_fields=["tries", "outcome", "handled_at"])


def _notify(event: MessageEvent) -> None:
    """Create the notifications of the people to tell."""
    people = sorted(audience.find_people(event))
    timings = choices.find_timings(event, people, requester=audience.find_requester(event))
    due = _find_due_times(event, timings) if settings.CONFIG.mail_server is not None else {}
    notifications = [
        Notification(user_id=user_id, event=event, mail=timings[user_id], mail_due_at=due.get(user_id))
        for user_id in people
    ]
    Notification.objects.bulk_create(notifications, batch_size=1000, ignore_conflicts=True)


def _find_due_times(event: MessageEvent, timings: Mapping[UUID, Timing]) -> dict[UUID, datetime]:
    """Return when the e-mail about the event to each person is due. People who get no e-mail are left out."""
    now = timezone.now()
    due = _next_mails([user_id for user_id, timing in timings.items() if timing is Timing.NOW], event, now)
    daily = _next_daily(now)
    return {**due, **{user_id: daily for user_id, timing in timings.items() if timing is Timing.DAILY}}


def _next_mails(user_ids: Collection[UUID], event: MessageEvent, now: datetime) -> dict[UUID, datetime]:
    """Return when the next e-mail to each of these people is due: now, unless they got ``MOST_MAILS`` lately.

    All e-mails that a person gets later are due at the same time, so that they are sent together.
    """
    if event.type == MessageType.INVITATION:
        return dict.fromkeys(user_ids, now)
    rows = Notification.objects.filter(user__in=user_ids).order_by()
    recent = rows.filter(mailed_at__gt=now - MAIL_WINDOW)
    counts = dict(recent.values_list("user").annotate(mails=Count("mailed_at", distinct=True)))
    collected = rows.filter(mail=Timing.NOW, mail_tries=0, mail_due_at__gt=now)
    later = dict(collected.values_list("user").annotate(at=Min("mail_due_at")))
    return {
        user_id: later.get(user_id, now + MAIL_WINDOW) if counts.get(user_id, 0) >= MOST_MAILS else now
        for user_id in user_ids
    }


def _next_daily(now: datetime) -> datetime:
    today = now.replace(hour=DAILY_AT_HOUR, minute=0, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)


def summarize_grouped() -> None:
    """Create the events that stand for groups of repeated events."""
    limits.summarize()
