"""From an audit event to what is owed to receivers, in the transaction that wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from apps.tenancy.jobs import DeliverWebhooks
from apps.tenancy.models import AuditEvent, Webhook, WebhookDelivery
from apps.tenancy.webhooks.events import FAMILIES, wants
from byteor_cloud.jobs import enqueue


def announce(event: AuditEvent) -> None:
    """Owe the event to every webhook that asks for it: one query where there is none, nothing for other events."""
    if event.outcome != "success" or event.organization_id is None or not event.action.startswith(FAMILIES):
        return
    webhooks = Webhook.objects.filter(
        Q(project=None) | Q(project_id=event.project_id),
        Q(environment=None) | Q(environment_id=event.environment_id),
        organization_id=event.organization_id,
        enabled=True,
    )
    owe([pk for pk, asked in webhooks.values_list("pk", "events") if wants(asked, event.action)], event)


def owe(webhook_ids: Sequence[UUID], event: AuditEvent) -> list[WebhookDelivery]:
    """A delivery of the event for each webhook, due at once; the worker sends it after the commit."""
    if not webhook_ids:
        return []
    now = timezone.now()
    owed = [WebhookDelivery(webhook_id=pk, event=event, next_attempt_at=now) for pk in webhook_ids]
    WebhookDelivery.objects.bulk_create(owed)
    for webhook_id in webhook_ids:
        wake(webhook_id, event.organization_id)
    return owed


def wake(webhook_id: UUID, organization_id: UUID | None, *, once: bool = False) -> None:
    """Have the worker send what the receiver is owed, after what it sends there already.

    Not ``once`` within a change: a second change would wait for the first one's commit.
    """
    key = f"webhook:{webhook_id}"
    enqueue(
        DeliverWebhooks(webhook_id=str(webhook_id)),
        organization=organization_id,
        serial=key,
        once=key if once else None,
    )
