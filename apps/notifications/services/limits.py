"""Limit the messages about repeated events. Further events are grouped, and one later message covers all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models import MessageEvent


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``most`` messages in ``window`` for the repetitions of an event."""

    most: int
    window: timedelta


_M = MessageType
DEFAULT = Limit(10, timedelta(minutes=10))
LIMITS: Mapping[MessageType, Limit] = {
    _M.INCIDENT_NEW: Limit(1, timedelta(hours=1)),
    _M.INCIDENT_REOPENED: Limit(1, timedelta(hours=1)),
    _M.AGENTS_FAILED: Limit(1, timedelta(minutes=10)),
    _M.AGENTS_OFFLINE: Limit(1, timedelta(minutes=10)),
}
# No message about these events may be left out: they are urgent, or few of them are about the same person, credential
# or quota level.
_UNLIMITED = {_M.BREAK_GLASS_NEEDED, _M.INVITATION, _M.KEY_EXPIRES, _M.QUOTA_NEAR}
_MAX_GROUPED = 10_000  # events that one summary covers
_MAX_READ = 50  # covered events from which the content and the people of a summary are found


def is_exceeded(event: MessageEvent) -> bool:
    """Return whether the event must be grouped: the limit is reached, or recent events still wait for their summary.

    Returns False for types without a limit (``_UNLIMITED``), for summaries, and for reminders, which are limited to one
    an hour for each approval.
    """
    if event.type in _UNLIMITED or event.is_summary or event.data.get("is_reminder"):
        return False
    return _recent(event, EventOutcome.GROUPED).filter(summary=None).exists() or _is_reached(event)


def _is_reached(event: MessageEvent) -> bool:
    """Return whether people were notified of as many repetitions of the event as its limit permits."""
    most = _limit_of(event).most
    return _recent(event, EventOutcome.NOTIFIED)[:most].count() >= most


def _limit_of(event: MessageEvent) -> Limit:
    return LIMITS.get(MessageType(event.type), DEFAULT)


def _recent(event: MessageEvent, outcome: EventOutcome) -> QuerySet[MessageEvent]:
    """Return the repetitions of the event with this outcome that were handled within the window of its limit."""
    return MessageEvent.objects.filter(
        organization=event.organization_id,
        type=event.type,
        environment=event.environment_id,
        subject=event.subject,
        outcome=outcome,
        handled_at__gt=timezone.now() - _limit_of(event).window,
    )


def summarize() -> None:
    """Create a summary for each group of events, as soon as the limit permits another message."""
    open_groups = MessageEvent.objects.filter(outcome=EventOutcome.GROUPED, summary=None)
    groups = open_groups.order_by().values_list("organization", "type", "environment", "subject").distinct()
    for organization_id, type, environment_id, subject in groups:
        _summarize(open_groups.filter(
            organization=organization_id, type=type, environment=environment_id, subject=subject
        ))  # fmt: skip


@transaction.atomic
def _summarize(group: QuerySet[MessageEvent]) -> None:
    last = group.order_by("-pk").select_for_update(of=("self",)).first()
    if last is None or _is_reached(last):
        return
    first = group.order_by("pk").values_list("created_at", flat=True)[0]
    grouped = list(group.order_by("pk").values_list("pk", flat=True)[:_MAX_GROUPED])
    summary = MessageEvent.objects.create(
        organization_id=last.organization_id,
        project_id=last.project_id,
        environment_id=last.environment_id,
        type=last.type,
        resource_kind=last.resource_kind,
        resource_id=last.resource_id,
        subject=last.subject,
        data={**last.data, "since": first.isoformat()},
        count=len(grouped),
    )
    MessageEvent.objects.filter(pk__in=grouped).update(summary=summary)


def find_members(event: MessageEvent) -> list[MessageEvent]:
    """Return the newest of the events that a summary covers, or only the event itself if it is not a summary."""
    if not event.is_summary:
        return [event]
    rows = MessageEvent.objects.select_related("organization", "project", "environment").filter(summary=event)
    return list(rows.order_by("-pk")[:_MAX_READ])
