"""What is owed to receivers, sent by the worker: at least once, with back-off, until it is taken or given up."""

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

from apps.tenancy.actors import system
from apps.tenancy.models import AuditEvent, Webhook, WebhookDelivery
from apps.tenancy.pruning import delete_in_batches
from apps.tenancy.services import webhooks
from apps.tenancy.vault import VaultError
from apps.tenancy.webhooks import outgoing, signing
from apps.tenancy.webhooks.announce import wake
from apps.tenancy.webhooks.events import Outcome, type_of
from byteor_cloud import __version__

WORKER = system("webhooks")
# After the first attempt 7 more, 15 s, 1 min, 4 min, … after the one before: 23 hours in all, and some jitter.
ATTEMPTS, FIRST_WAIT, FACTOR = 8, timedelta(seconds=15), 4
LONGEST_RETRY_AFTER = timedelta(days=1)
# A receiver that has taken nothing for so long, when a delivery is given up, is disabled.
DISABLED_AFTER = timedelta(days=3)
KEPT_FOR = timedelta(days=30)
# Of one job, in deliveries and in time: then another receiver's may have the slot, and a shutdown does not wait long.
AT_ONCE, LONGEST_S = 20, 10
KEPT_ATTEMPTS = 50


def deliver_due(webhook_id: UUID) -> None:
    """Send one receiver what it is owed, oldest first, until it fails to take one. Another job takes the rest."""
    until = monotonic() + LONGEST_S
    due = WebhookDelivery.objects.select_related("webhook__organization", "event").order_by("id")
    organization_id: UUID | None = None
    for _ in range(AT_ONCE):
        delivery = due.due(timezone.now()).filter(webhook=webhook_id).first()
        if delivery is None or not _attempt(delivery):
            return
        organization_id = delivery.webhook.organization_id
        if monotonic() >= until:
            break
    wake(webhook_id, organization_id)


def wake_due() -> None:
    """Have the worker send what is due: retries, and what a killed worker left."""
    due = WebhookDelivery.objects.due(timezone.now())
    receivers = due.order_by().values_list("webhook_id", "webhook__organization_id").distinct()
    for webhook_id, organization_id in receivers:
        wake(webhook_id, organization_id, once=True)


def forget_old() -> None:
    """Remove the log's lines past their time."""
    delete_in_batches(WebhookDelivery.objects.filter(created_at__lt=timezone.now() - KEPT_FOR))


def payload(event: AuditEvent) -> bytes:
    """The body: what happened and where to read more. The same bytes at every attempt."""
    said: dict[str, Any] = {
        "id": str(event.pk),
        "type": type_of(event.action),
        "created_at": _z(event.timestamp),
        "organization_id": str(event.organization_id),
        "project_id": event.project_id and str(event.project_id),
        "environment_id": event.environment_id and str(event.environment_id),
        "resource": {"kind": event.resource_kind, "id": event.resource_id, "url": _url(event)},
        "actor": {"kind": event.actor_kind, "display": event.actor_display},
        "changes": event.changes,
    }
    return json.dumps(said, separators=(",", ":")).encode()


def _z(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _url(event: AuditEvent) -> str:
    """The resource in the API; without a scheme and host where PUBLIC_BASE_URL does not say them."""
    base = f"{settings.CONFIG.public_base_url or ''}/api/v1/orgs/{event.organization_id}"
    if event.environment_id is not None:
        base += f"/projects/{event.project_id}/environments/{event.environment_id}"
    return f"{base}/{event.resource_kind}s/{event.resource_id}"


def _attempt(delivery: WebhookDelivery) -> bool:
    """Send it once and note what came of it; whether it was taken."""
    webhook, at = delivery.webhook, timezone.now()
    body = payload(delivery.event)
    try:
        keys: Sequence[bytes] = webhooks.keys(webhook)
    except VaultError:
        answer = outgoing.Answer(None, "master_key", 0)
    else:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ByteOr-Cloud/{__version__}",
            **signing.headers(str(delivery.event_id), body, at=int(at.timestamp()), keys=keys),
        }
        answer = outgoing.post(webhook.url, body, headers, allowed=settings.CONFIG.webhook_allow_private)
    _note(delivery, answer, at)
    return answer.ok


@transaction.atomic
def _note(sent: WebhookDelivery, answer: outgoing.Answer, at: datetime) -> None:
    """Nothing of it is known when the worker dies before this: then it is sent again."""
    webhook = Webhook.objects.select_for_update(no_key=True).filter(pk=sent.webhook_id).first()
    delivery = WebhookDelivery.objects.select_for_update(no_key=True).filter(pk=sent.pk).first()
    if webhook is None or delivery is None:
        return  # deleted meanwhile
    now = timezone.now()
    tried = {
        "at": _z(at),
        "status": answer.status,
        "error": answer.error,
        "duration_ms": answer.duration_ms,
    }
    delivery.attempts = [*delivery.attempts, tried][-KEPT_ATTEMPTS:]
    delivery.tries += 1
    gone = answer.status == 410
    if answer.ok:
        delivery.status = Outcome.DELIVERED
    elif gone or delivery.tries >= ATTEMPTS:
        delivery.status = Outcome.FAILED
    pending = delivery.status == Outcome.PENDING
    delivery.next_attempt_at = now + _wait(delivery.tries, answer.retry_after, now) if pending else None
    delivery.finished_at = None if pending else now
    delivery.save(update_fields=["attempts", "tries", "status", "next_attempt_at", "finished_at"])
    _judge(webhook, answer, now, given_up=delivery.status == Outcome.FAILED)


def _judge(webhook: Webhook, answer: outgoing.Answer, now: datetime, *, given_up: bool) -> None:
    """Remember since when the receiver fails; disable one that is gone, or fails for days."""
    since = None if answer.ok else webhook.failing_since or now
    if since != webhook.failing_since:
        webhook.failing_since = since
        webhook.save(update_fields=["failing_since"])
    if not webhook.enabled or since is None:
        return
    if answer.status == 410:
        webhooks.disable(webhook, reason="The receiver answered 410 Gone.", actor=WORKER)
    elif given_up and now - since >= DISABLED_AFTER:
        webhooks.disable(webhook, reason=f"It has taken nothing since {since:%Y-%m-%d %H:%M} UTC.", actor=WORKER)


def _wait(tries: int, retry_after: str | None, now: datetime) -> timedelta:
    """How long after the attempt number ``tries``: exponential, at least what the receiver asks for."""
    backoff: timedelta = FIRST_WAIT * FACTOR ** (tries - 1) * random.uniform(1, 1.2)  # noqa: S311  spreads them
    return max(backoff, min(_asked(retry_after, now), LONGEST_RETRY_AFTER))


def _asked(retry_after: str | None, now: datetime) -> timedelta:
    """A ``Retry-After``: seconds or a date; nothing when it is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return timedelta(seconds=int(text))
    try:
        moment = parsedate_to_datetime(text)
        return moment.astimezone(UTC) - now
    except (ValueError, OverflowError):
        return timedelta(0)
