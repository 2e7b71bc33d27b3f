"""Handle new events: create the notifications and chat deliveries. ``mail`` and ``chat`` send them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Min, Q
from django.utils import timezone

from apps.notifications.jobs import HandleEvents
from apps.notifications.models import Notification
from apps.notifications.services import audience, choices, limits, wording
from apps.notifications.services.chat import deliveries
from apps.notifications.services.mail import sending
from apps.tenancy.message_types import EventOutcome, MessageType, Timing
from apps.tenancy.models import MessageEvent, User
from byteor_cloud.worker.jobs import enqueue, is_outage

logger = structlog.get_logger(__name__)
MAX_JOB_S = 10
# Attempts to handle an event. The waits between them are 6 s, 12 s, 24 s, …: more than three hours in total.
MAX_TRIES, FIRST_WAIT = 12, timedelta(seconds=6)
# After a person got ``MOST_MAILS`` e-mails from an organization within ``MAIL_WINDOW``, the person's further
# immediate notifications from it are collected in one e-mail, except for those that ``_next_mails`` never delays.
MOST_MAILS, MAIL_WINDOW = 5, timedelta(minutes=10)
# The maximum number of invitation e-mails to a person in a day. Anybody can create an organization and invite people.
MOST_INVITATIONS = 20
DAILY_AT_HOUR = 8  # UTC, because the time zones of people are unknown


def enqueue_pending() -> None:
    """Enqueue a job for each organization with new events to handle now, unless such a job is already waiting."""
    pending = MessageEvent.objects.filter(_is_due(), outcome=EventOutcome.PENDING).order_by()
    for organization_id in pending.values_list("organization_id", flat=True).distinct():
        key = f"message_events:{organization_id}"
        enqueue(HandleEvents(organization_id=str(organization_id)), organization=organization_id, serial=key, once=key)


def handle_pending(organization_id: UUID) -> None:
    """Handle the organization's new events, oldest first. After ``MAX_JOB_S`` seconds, no further event is started.

    An error while handling one event does not delay the others, unless it is an outage (``is_outage``), which is
    raised. The event is retried later, up to ``MAX_TRIES`` attempts in total. At the end, enqueues the job that sends
    the organization's due e-mails. Do not call this in a transaction.
    """
    deadline = monotonic() + MAX_JOB_S
    while monotonic() < deadline:
        rows = MessageEvent.objects.filter(_is_due(), organization=organization_id, outcome=EventOutcome.PENDING)
        event_id = rows.order_by("pk").values_list("pk", flat=True).first()
        if event_id is None:
            break
        try:
            _handle(event_id)
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception("message_event_not_handled", event_id=str(event_id))
            _count_failure(event_id)
    sending.enqueue_due(organization_id)


def _is_due() -> Q:
    """Return the condition that no attempt to handle an event has failed yet, or that the next attempt is due."""
    return Q(retry_at=None) | Q(retry_at__lte=timezone.now())


@transaction.atomic
def _handle(event_id: UUID) -> None:
    """Set the outcome of a new event and create its notifications and deliveries. Does nothing if it is not new."""
    rows = MessageEvent.objects.select_related("organization", "project", "environment")
    new = rows.filter(pk=event_id, outcome=EventOutcome.PENDING)
    event = new.select_for_update(of=("self",), no_key=True).first()
    if event is None:
        return
    event.handled_at = timezone.now()
    if limits.is_exceeded(event):
        event.outcome = EventOutcome.GROUPED
    elif (content := wording.describe(event)) is None:
        event.outcome = EventOutcome.OBSOLETE
    else:
        event.outcome, event.text, event.path = EventOutcome.NOTIFIED, content.sentence[:500], content.path
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
    event.retry_at = timezone.now() + FIRST_WAIT * 2 ** (event.tries - 1)
    if event.tries >= MAX_TRIES:
        event.outcome, event.handled_at = EventOutcome.FAILED, timezone.now()
    event.save(update_fields=["tries", "retry_at", "outcome", "handled_at"])


def _notify(event: MessageEvent) -> None:
    """Create the notifications about the event."""
    people = sorted(audience.find_people(event))
    timings = choices.find_timings(event, people, requesters=audience.find_requesters(event))
    due = _find_due_times(event, timings) if settings.CONFIG.smtp_url is not None else {}
    notifications = [
        Notification(user_id=user_id, event=event, mail=timings[user_id], mail_due_at=due.get(user_id))
        for user_id in people
    ]
    Notification.objects.bulk_create(notifications, batch_size=1000, ignore_conflicts=True)


def _find_due_times(event: MessageEvent, timings: Mapping[UUID, Timing]) -> dict[UUID, datetime]:
    """Return when each person's e-mail about the event is due, without the people who get no e-mail."""
    now = timezone.now()
    verified = set(User.objects.filter(pk__in=timings, email_verified=True).values_list("pk", flat=True))
    due = _next_mails([user_id for user_id in verified if timings[user_id] is Timing.NOW], event, now)
    daily = _next_daily(now)
    return {**due, **{user_id: daily for user_id in verified if timings[user_id] is Timing.DAILY}}


def _next_mails(user_ids: Collection[UUID], event: MessageEvent, now: datetime) -> dict[UUID, datetime]:
    """Return when the e-mail to each of these people is due: now, or later if they got ``MOST_MAILS`` recently.

    Counts only e-mails from the event's organization, so that no organization can delay another's. If several
    notifications are delayed, later ones are due with the first of those that still wait.

    E-mails about pending break-glass approvals, and e-mails with invitations, are never delayed. An invitation causes
    no e-mail if the person got ``MOST_INVITATIONS`` of them in the last day, from all organizations. Pending ones count
    as well.
    """
    rows = Notification.objects.filter(user__in=user_ids).order_by()
    if event.type == MessageType.INVITATION:
        invited = rows.filter(event__type=event.type, created_at__gt=now - timedelta(days=1), mail_due_at__isnull=False)
        mailed = rows.filter(event__type=event.type, mailed_at__gt=now - timedelta(days=1))
        is_flooded = invited.count() + mailed.count() >= MOST_INVITATIONS
        return {} if is_flooded else dict.fromkeys(user_ids, now)
    if event.type == MessageType.BREAK_GLASS_NEEDED:
        return dict.fromkeys(user_ids, now)  # it has a deadline
    rows = rows.filter(event__organization=event.organization_id)
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
