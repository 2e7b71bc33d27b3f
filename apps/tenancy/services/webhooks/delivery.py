"""Send pending webhook deliveries in the worker: at least once, with back-off, until success or permanent failure."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.tenancy.actors import system_actor
from apps.tenancy.models import AuditEvent, Webhook, WebhookDelivery
from apps.tenancy.services.vault import VaultError
from apps.tenancy.services.webhooks import outgoing, signing, subscriptions
from apps.tenancy.services.webhooks.announce import enqueue_sending
from apps.tenancy.webhook_events import Outcome, type_of
from byteor_cloud import __version__
from byteor_cloud.database.deletion import delete_in_batches

WORKER = system_actor("webhooks")
# The waits between the 8 attempts are 15 s, 1 min, 4 min, …: about 23 hours in total, plus jitter.
ATTEMPTS, FIRST_WAIT, FACTOR = 8, timedelta(seconds=15), 4
LONGEST_RETRY_AFTER = timedelta(days=1)
# If a delivery fails permanently and all attempts of its webhook have failed for this long, the webhook is disabled.
DISABLED_AFTER = timedelta(days=3)
KEPT_FOR = timedelta(days=30)
# Limits of one job, so that other receivers get the worker's slot and a shutdown does not wait long.
MAX_DELIVERIES_PER_JOB, MAX_JOB_S = 20, 10
KEPT_ATTEMPTS = 50  # latest attempts stored with each delivery


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
    """Enqueue a job for each webhook with due deliveries, unless such a job is already waiting.

    These deliveries are retries, or deliveries that earlier jobs did not reach.
    """
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
        "created_at": _format_time(event.timestamp),
        "organization_id": str(event.organization_id),
        "project_id": event.project_id and str(event.project_id),
        "environment_id": event.environment_id and str(event.environment_id),
        "resource": {"kind": event.resource_kind, "id": event.resource_id, "url": _resource_url(event)},
        "actor": {"kind": event.actor_kind, "display": event.actor_display},
        "changes": event.changes,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _resource_url(event: AuditEvent) -> str:
    """Return the API's URL of the event's resource: absolute if PUBLIC_BASE_URL is set, otherwise only the path."""
    base = f"{settings.CONFIG.public_base_url or ''}/api/v1/orgs/{event.organization_id}"
    if event.environment_id is not None:
        base += f"/projects/{event.project_id}/environments/{event.environment_id}"
    return f"{base}/{event.resource_kind}s/{event.resource_id}"


def _attempt(delivery: WebhookDelivery) -> bool:
    """Send the delivery once and record the result; return whether the receiver accepted it."""
    webhook, at = delivery.webhook, timezone.now()
    body = payload(delivery.event)
    try:
        keys: Sequence[bytes] = subscriptions.signing_secrets(webhook)
    except VaultError:
        result = outgoing.PostResult(None, "master_key", 0)
    else:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ByteOr-Cloud/{__version__}",
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
    now = timezone.now()
    attempt = {
        "at": _format_time(at),
        "status": result.status,
        "error": result.error,
        "duration_ms": result.duration_ms,
    }
    delivery.attempts = [*delivery.attempts, attempt][-KEPT_ATTEMPTS:]
    delivery.tries += 1
    is_gone = result.status == 410
    if result.is_success:
        delivery.status = Outcome.DELIVERED
    elif is_gone or delivery.tries >= ATTEMPTS:
        delivery.status = Outcome.FAILED
    pending = delivery.status == Outcome.PENDING
    delivery.next_attempt_at = now + _backoff(delivery.tries, result.retry_after, now) if pending else None
    delivery.finished_at = None if pending else now
    delivery.save(update_fields=["attempts", "tries", "status", "next_attempt_at", "finished_at"])
    _update_webhook(webhook, result, now, has_failed=delivery.status == Outcome.FAILED)


def _update_webhook(webhook: Webhook, result: outgoing.PostResult, now: datetime, *, has_failed: bool) -> None:
    """Update ``failing_since``. Disable the webhook after a 410 or as ``DISABLED_AFTER`` describes."""
    since = None if result.is_success else webhook.failing_since or now
    if since != webhook.failing_since:
        webhook.failing_since = since
        webhook.save(update_fields=["failing_since"])
    if not webhook.enabled or since is None:
        return
    if result.status == 410:
        subscriptions.disable(webhook, reason="The receiver returned 410 Gone.", actor=WORKER)
    elif has_failed and now - since >= DISABLED_AFTER:
        reason = f"The receiver has accepted nothing since {since:%Y-%m-%d %H:%M} UTC."
        subscriptions.disable(webhook, reason=reason, actor=WORKER)


def _backoff(tries: int, retry_after: str | None, now: datetime) -> timedelta:
    """Return the wait after attempt ``tries``. It grows exponentially. ``Retry-After`` extends it, up to a day."""
    backoff: timedelta = FIRST_WAIT * FACTOR ** (tries - 1) * random.uniform(1, 1.2)  # noqa: S311  no secret: the factor only spreads the load
    return max(backoff, min(_read_retry_after(retry_after, now), LONGEST_RETRY_AFTER))


def _read_retry_after(retry_after: str | None, now: datetime) -> timedelta:
    """Return the wait in a ``Retry-After`` header, which contains seconds or a date; zero if it contains neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return timedelta(seconds=int(text))
    try:
        moment = parsedate_to_datetime(text)
        return moment.astimezone(UTC) - now
    except (ValueError, OverflowError):
        return timedelta(0)
