"""Record the events about which people are notified. ``apps.notifications`` sends the messages later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from apps.tenancy.message_types import REMINDER, MessageType, type_of
from apps.tenancy.models import AuditEvent, Environment, MessageEvent, Organization, Project, tenant_ids


def record(
    type: MessageType,
    *,
    scope: Organization | Project | Environment,
    resource: tuple[str, object],
    subject: str = "",
    data: Mapping[str, Any] | None = None,
    key: str | None = None,
    actor_id: UUID | None = None,
    actor_display: str = "",
) -> None:
    """Record an event in the current transaction, unless an event with this ``key`` already exists.

    ``data`` must contain no secret and no payload.
    """
    event = MessageEvent(
        **tenant_ids(scope),
        type=type,
        resource_kind=resource[0],
        resource_id=str(resource[1]),
        subject=subject,
        actor_id=actor_id,
        actor_display=actor_display,
        data=dict(data or {}),
        key=key,
    )
    _insert(event)


def record_audited(event: AuditEvent) -> None:
    """Record the event that an audit event causes, if people are notified about it (``type_of``)."""
    type = type_of(event.action, event.changes)
    if type is None or event.outcome != "success" or event.organization_id is None:
        return
    _insert(
        MessageEvent(
            organization_id=event.organization_id,
            project_id=event.project_id,
            environment_id=event.environment_id,
            type=type,
            resource_kind=event.resource_kind,
            resource_id=event.resource_id,
            actor_id=event.actor_id if event.actor_kind == "user" else None,
            actor_display=event.actor_display,
            data={"is_reminder": True} if event.action == REMINDER else {},
        )
    )


def _insert(event: MessageEvent) -> None:
    if event.key is None:
        event.save(force_insert=True)
    else:
        MessageEvent.objects.bulk_create([event], ignore_conflicts=True)
