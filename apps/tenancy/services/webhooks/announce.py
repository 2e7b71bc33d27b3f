"""Create the webhook deliveries of an audit event, in the transaction that records the event."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from apps.tenancy.jobs import DeliverWebhooks
from apps.tenancy.models import AuditEvent, Membership, Webhook, WebhookDelivery
from apps.tenancy.webhook_events import is_announced, matches_any
from byteor_cloud.database.compiled import CompiledQuery
from byteor_cloud.worker.jobs import enqueue

_subscribed = CompiledQuery(
    lambda organization_id, project_id, environment_id: Webhook.objects.filter(
        Q(project=None) | Q(project_id=project_id),
        Q(environment=None) | Q(environment_id=environment_id),
        organization_id=organization_id,
        enabled=True,
    ).only("events"),
    UUID,
    UUID,
    UUID,
)


def announce(event: AuditEvent) -> None:
    """Create a delivery for every enabled webhook that subscribes to the event.

    Does nothing for an event that no webhook can receive, for example if its outcome is not success.
    """
    if event.outcome != "success" or event.organization_id is None or not is_announced(event.action):
        return
    webhooks = _subscribed.rows(event.organization_id, event.project_id, event.environment_id)
    create_deliveries([each.pk for each in webhooks if matches_any(each.events, event.action)], event)


def create_deliveries(webhook_ids: Sequence[UUID], event: AuditEvent) -> list[WebhookDelivery]:
    """Create a delivery of the event for each webhook, due immediately. The worker sends it after the commit."""
    if not webhook_ids:
        return []
    now = timezone.now()
    deliveries = [WebhookDelivery(webhook_id=pk, event=event, next_attempt_at=now) for pk in webhook_ids]
    WebhookDelivery.objects.bulk_create(deliveries)
    for webhook_id in webhook_ids:
        enqueue_sending(webhook_id, event.organization_id)
    return deliveries


def enqueue_sending(webhook_id: UUID, organization_id: UUID | None, *, once: bool = False) -> None:
    """Enqueue a job that sends the webhook's due deliveries. Jobs of the same webhook run one after another.

    ``once`` enqueues nothing if a job that was enqueued with ``once`` is already waiting. Do not use ``once`` in a
    transaction that changes other rows, because concurrent transactions would wait for its commit.
    """
    key = f"webhook:{webhook_id}"
    enqueue(
        DeliverWebhooks(webhook_id=str(webhook_id)),
        organization=organization_id,
        person=None if organization_id is None else Membership.first_admin(organization_id),
        serial=key,
        once=key if once else None,
    )
