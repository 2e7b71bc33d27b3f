"""Record audit events in the transaction of the change. ``ledger`` seals them.

Events that belong to no organization go to the installation's own chain. Events of a person's account, such as
sign-ins, are also in it, and organizations that the person has joined can get a copy (``record_of_person``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.postgres.functions import TransactionNow
from django.db import connection, transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.audit_changes import MAX_BYTES, fit
from apps.tenancy.models import (
    AuditEvent,
    DenialCount,
    Membership,
    RepeatedEvent,
    Tenant,
    User,
    tenant_ids,
)
from apps.tenancy.services.message_events import record_audited
from apps.tenancy.services.webhooks.announce import announce
from byteor_cloud.ids import uuid7

# Computed with the database's clock, which also determines the minute of each row.
_MINUTE_AGO = TransactionNow() - timedelta(minutes=1)
_COUNT_BYTES = 100  # bytes reserved for the count and the minute in an event about repetitions
_NOT_COPIED = frozenset({"name"})  # the name of a token or a machine is private to the person

type Scope = Tenant


def record(
    action: str,
    *,
    actor: Actor,
    scope: Scope,
    resource: tuple[str, object],
    changes: Mapping[str, Any] | None = None,
    outcome: str = "success",
    subject: tuple[str, object] | None = None,
) -> AuditEvent:
    """Record one event. Call this inside the transaction of the change. ``changes`` must not contain a secret.

    If an organization key repeats an event in the same minute, the repetition is only counted, and the first event is
    returned. Events of a key with the same action and ``subject`` count as repetitions. ``subject`` defaults to the
    resource. If each repetition creates another resource, pass a ``subject`` that stays the same.
    """
    event = _event(action, actor, resource, changes, outcome=outcome, **tenant_ids(scope))
    if (repeated := _count_repetition(event, subject or resource)) is not None:
        return repeated
    event.save(force_insert=True)
    announce(event)
    record_audited(event)
    return event


@dataclass(frozen=True, slots=True)
class Entry:
    """An event for ``record_all``. The fields are arguments of ``record``."""

    action: str
    actor: Actor
    scope: Scope
    resource: tuple[str, object]
    changes: Mapping[str, Any] | None = None


def record_all(entries: Iterable[Entry]) -> None:
    """Record several events. Call this inside the transaction of the changes.

    Entries with the same actor, action and resource belong together: all of them are recorded, or they count as one
    repetition.
    """
    events: list[AuditEvent] = []
    are_repeated: dict[tuple[str, str, tuple[str, object]], bool] = {}
    for each in entries:
        event = _event(each.action, each.actor, each.resource, each.changes, **tenant_ids(each.scope))
        key = (each.actor.id, each.action, each.resource)
        if key not in are_repeated:
            are_repeated[key] = _count_repetition(event, each.resource) is not None
        if not are_repeated[key]:
            events.append(event)
    AuditEvent.objects.bulk_create(events, batch_size=2000)
    for event in events:
        announce(event)
        record_audited(event)


@transaction.atomic
def record_of_person(
    action: str,
    *,
    person: User,
    actor: Actor,
    resource: tuple[str, object],
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Record an event of a person's account, such as a sign-in or a change to one of the person's tokens.

    The full event goes to the installation's chain. A copy without the IP address and without the name of a token or a
    machine goes to the chain of each organization that the person has joined. While the account is unclaimed and
    not the actor, no organization gets a copy.
    """
    record(action, actor=actor, scope=None, resource=resource, changes=changes)
    copied = {name: value for name, value in (changes or {}).items() if name not in _NOT_COPIED}
    AuditEvent.objects.bulk_create(
        _event(action, replace(actor, ip=None), resource, copied, organization_id=organization_id)
        for organization_id in _joined_organizations(person, actor)
    )


def _joined_organizations(person: User, actor: Actor) -> list[UUID]:
    """Return the ids of the organizations that the person has joined; none while the person's account is unclaimed.

    An account is also treated as claimed if it is the actor.
    """
    if actor.user_id != person.pk and not User.objects.claimed().filter(pk=person.pk).exists():
        return []
    mine = Membership.objects.live().filter(user=person)
    return list(mine.order_by("organization_id").values_list("organization_id", flat=True).distinct())


def _event(
    action: str,
    actor: Actor,
    resource: tuple[str, object],
    changes: Mapping[str, Any] | None,
    *,
    outcome: str = "success",
    **scope_ids: Any,
) -> AuditEvent:
    return AuditEvent(
        action=action,
        outcome=outcome,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_display=actor.display,
        request_id=actor.request_id,
        ip=actor.ip,
        resource_kind=resource[0],
        resource_id=str(resource[1]),
        changes=fit(changes or {}),
        **scope_ids,
    )


def _count_repetition(event: AuditEvent, subject: tuple[str, object]) -> AuditEvent | None:
    """Count an event that an organization key has already caused in this minute, and return the earlier event.

    Returns None if the event must be recorded, because it is the first of its minute or has another kind of actor.
    """
    if event.actor_kind != "organization_key":
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenancy_repeatedevent AS found (event_id, actor_id, action, subject, minute, count,"
            " resource_id, request_id, ip, changes, last_at)"
            " VALUES (%s, %s, %s, %s, date_trunc('minute', now()), 0, '', '', NULL, '{}', now())"
            " ON CONFLICT (actor_id, action, subject, minute) DO UPDATE SET count = found.count + 1"
            " RETURNING id, count",
            [event.pk, event.actor_id, event.action, f"{subject[0]}:{subject[1]}"],
        )
        row_id, count = cursor.fetchone()
    if count == 0:
        return None
    row = RepeatedEvent.objects.select_related("event").get(pk=row_id)  # the statement above has locked this row
    row.changes = fit({**row.changes, **event.changes}, max_bytes=MAX_BYTES - _COUNT_BYTES)
    row.resource_id, row.request_id, row.ip, row.last_at = event.resource_id, event.request_id, event.ip, timezone.now()
    row.save(update_fields=["changes", "resource_id", "request_id", "ip", "last_at"])
    earlier: AuditEvent = row.event
    return earlier


@transaction.atomic
def close_repetitions() -> None:
    """Record one event for the repetitions of each event in a past minute, with their count and last values."""
    past = RepeatedEvent.objects.filter(minute__lte=_MINUTE_AGO)
    closed = past.select_related("event").select_for_update(of=("self",), skip_locked=True).order_by("last_at", "id")
    for row in closed:
        if row.count:
            event: AuditEvent = row.event
            event.pk, event.timestamp = uuid7(), timezone.now()
            event.resource_id, event.request_id, event.ip = row.resource_id, row.request_id, row.ip
            event.changes = {"count": row.count, "minute": row.minute.isoformat(), "last": row.changes}
            event.save(force_insert=True)
            announce(event)
        row.delete()


def count_denial(action: str, *, actor: Actor, organization_id: UUID | None) -> None:
    """Count a denied request of an authenticated caller. ``close_denials`` later records equal denials as one event."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenancy_denialcount (organization_id, actor_kind, actor_id, actor_display, action, minute,"
            " count) VALUES (%s, %s, %s, %s, %s, date_trunc('minute', now()), 1)"
            " ON CONFLICT (organization_id, actor_kind, actor_id, action, minute)"
            " DO UPDATE SET count = tenancy_denialcount.count + 1",
            [organization_id, actor.kind, actor.id, actor.display, action[:80]],
        )


@transaction.atomic
def close_denials() -> None:
    """Record one event for the denials of each actor and action in each organization and past minute."""
    closed = DenialCount.objects.filter(minute__lte=_MINUTE_AGO).select_for_update(skip_locked=True)
    for row in closed:
        record(
            row.action,
            actor=Actor(row.actor_kind, row.actor_id, row.actor_display),  # type: ignore[arg-type]  # only an ActorKind is ever stored
            scope=row.organization,
            resource=("credential", row.actor_id),
            changes={"denials": row.count, "minute": row.minute.isoformat()},
            outcome="denied",
            # Otherwise, if this runs late, the events for the minutes after the first would count as repetitions.
            subject=("denials", row.minute.isoformat()),
        )
        row.delete()
