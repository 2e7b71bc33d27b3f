"""Send pending webhook deliveries in the worker: at least once, with back-off, until success or permanent failure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.tenancy.models import AuditEvent, Webhook, WebhookDelivery
from apps.tenancy.services.vault import VaultError
from apps.tenancy.services.webhooks import attempts, outgoing, signing, subscriptions
from apps.tenancy.services.webhooks.announce import enqueue_sending
from apps.tenancy.webhook_events import Outcome, type_of
from byteor_cloud import __version__
from byteor_cloud.database.deletion import delete_in_batches

KEPT_FOR = timedelta(days=30)
# Limits of one job, so that other receivers get the worker's slot and a shutdown does not wait long.
MAX_DELIVERIES_PER_JOB, MAX_JOB_S = 20, 10


def deliver_due(webhook_id: UUID) -> None:
    """Send the due deliveries of one webhook, oldest first, until one fails or a limit of the job is reached.

    At a limit, another job for the remaining deliveries is enqueued.
    """
    deadline = monotonic() + MAX_JOB_S
    deliveries = WebhookDelivery.objects.select_related("webhook__organization", "event").order_by("id")
    organization_id: UUID | None = None
    for _ in range(MAX_DELIVERIES_PER_JOB):
        delivery = deliveries.due(timezone.now()).filter(webhook=webhook_id).first()
        if delivery is None or not _attempt(delivery):
            return
        organization_id = delivery.webhook.organization_id
        if monotonic() >= deadline:
            break
    enqueue_sending(webhook_id, organization_id)


def enqueue_due() -> None:
    """Enqueue a job for each webhook with due deliveries, unless the job of an earlier call is still waiting."""
    due = WebhookDelivery.objects.due(timezone.now())
    receivers = due.order_by().values_list("webhook_id", "webhook__organization_id").distinct()
    for webhook_id, organization_id in receivers:
        enqueue_sending(webhook_id, organization_id, once=True)


def delete_old_deliveries() -> None:
    """Delete deliveries that are older than 30 days."""
    delete_in_batches(WebhookDelivery.objects.filter(created_at__lt=timezone.now() - KEPT_FOR))


def payload(event: AuditEvent) -> bytes:
    """Return the body of the message about an event. It depends only on the event and on PUBLIC_BASE_URL."""
    message: dict[str, Any] = {
        "id": str(event.pk),
        "type": type_of(event.action),
        "created_at": attempts.format_time(event.timestamp),
        "organization_id": str(event.organization_id),
        "project_id": event.project_id and str(event.project_id),
        "environment_id": event.environment_id and str(event.environment_id),
        "resource": {"kind": event.resource_kind, "id": event.resource_id, "url": _resource_url(event)},
        "actor": {"kind": event.actor_kind, "display": event.actor_display},
        "changes": event.changes,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def plain_headers(delivery: WebhookDelivery) -> dict[str, str]:
    """Return the headers of the delivery's requests, without the time and the signatures."""
    return {
        "Content-Type": "application/json",
        "User-Agent": f"ByteOr-Cloud/{__version__}",
        signing.ID_HEADER: str(delivery.event_id),
    }


def _resource_url(event: AuditEvent) -> str:
    """Return the API's URL of the event's resource: absolute if PUBLIC_BASE_URL is set, otherwise only the path."""
    base = f"{settings.CONFIG.public_base_url or ''}/api/v1/orgs/{event.organization_id}"
    if event.environment_id is not None:
        base += f"/projects/{event.project_id}/environments/{event.environment_id}"
    return f"{base}/{event.resource_kind}s/{event.resource_id}"


def _attempt(delivery: WebhookDelivery) -> bool:
    """Make one attempt to send the delivery and record its result; return whether the receiver accepted it."""
    webhook, at = delivery.webhook, timezone.now()
    body = payload(delivery.event)
    try:
        keys: Sequence[bytes] = subscriptions.signing_secrets(webhook)
    except VaultError:
        result = outgoing.PostResult(None, "master_key", 0)
    else:
        headers = {
            **plain_headers(delivery),
            **signing.headers(str(delivery.event_id), body, at=int(at.timestamp()), keys=keys),
        }
        result = outgoing.post(webhook.url, body, headers, allowed=settings.CONFIG.webhook_allow_private)
    _record_attempt(delivery, result, at)
    return result.is_success


@transaction.atomic
def _record_attempt(sent: WebhookDelivery, result: outgoing.PostResult, at: datetime) -> None:
    """Save the result of an attempt. If the worker is killed before this, the delivery is sent again."""
    webhook = Webhook.objects.select_for_update(no_key=True).filter(pk=sent.webhook_id).first()
    delivery = WebhookDelivery.objects.select_for_update(no_key=True).filter(pk=sent.pk).first()
    if webhook is None or delivery is None:
        return  # the webhook or the delivery was deleted in the meantime
    attempts.record(delivery, result, at)
    has_failed = delivery.status == Outcome.FAILED
    attempts.update_receiver(webhook, result, has_failed=has_failed, kind="webhook", scope=webhook.organization)
