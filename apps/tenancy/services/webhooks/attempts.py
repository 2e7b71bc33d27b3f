"""Record attempts to deliver messages to webhooks and chat webhooks, retry them, and disable failing webhooks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from django.utils import timezone

from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import Delivery, Receiver, Tenant
from apps.tenancy.services import audit
from apps.tenancy.services.webhooks.outgoing import PostResult
from apps.tenancy.webhook_events import Outcome

WORKER = system_actor("webhooks")
# The waits between the 8 attempts are 15 s, 1 min, 4 min, …: about 23 hours in total, plus jitter.
ATTEMPTS, FIRST_WAIT, FACTOR = 8, timedelta(seconds=15), 4
LONGEST_RETRY_AFTER = timedelta(days=1)
# If a delivery fails permanently and all attempts of its webhook have failed for this long, the webhook is disabled.
DISABLED_AFTER = timedelta(days=3)
KEPT_ATTEMPTS = 50  # latest attempts stored with each delivery
GONE = 410  # the status by which a receiver declines all further messages


def format_time(moment: datetime) -> str:
    """Return the moment in UTC as RFC 3339."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def record(delivery: Delivery, result: PostResult, at: datetime, *, is_final: bool = False) -> None:
    """Record the result of an attempt made at ``at``. The caller must hold the lock of the delivery.

    After a failure, the delivery is retried later, unless ``is_final`` is set, this was the last attempt, or the status
    is 410.
    """
    now = timezone.now()
    attempt = {
        "at": format_time(at),
        "status": result.status,
        "error": result.error,
        "duration_ms": result.duration_ms,
    }
    delivery.attempts = [*delivery.attempts, attempt][-KEPT_ATTEMPTS:]
    delivery.tries += 1
    if result.is_success:
        delivery.status = Outcome.DELIVERED
    elif is_final or result.status == GONE or delivery.tries >= ATTEMPTS:
        delivery.status = Outcome.FAILED
    pending = delivery.status == Outcome.PENDING
    delivery.next_attempt_at = now + backoff(delivery.tries, result.retry_after, now) if pending else None
    delivery.finished_at = None if pending else now
    delivery.save(update_fields=["attempts", "tries", "status", "next_attempt_at", "finished_at"])


def update_receiver(receiver: Receiver, result: PostResult, *, has_failed: bool, kind: str, scope: Tenant) -> None:
    """Update ``failing_since``, and disable the webhook after a 410 or as ``DISABLED_AFTER`` describes.

    ``has_failed`` says whether a delivery has failed permanently. The caller must hold the webhook's lock.
    """
    now = timezone.now()
    since = None if result.is_success else receiver.failing_since or now
    if since != receiver.failing_since:
        receiver.failing_since = since
        receiver.save(update_fields=["failing_since"])
    if not receiver.enabled or since is None:
        return
    if result.status == GONE:
        disable(receiver, kind=kind, scope=scope, reason="The receiver returned 410 Gone.", actor=WORKER)
    elif has_failed and now - since >= DISABLED_AFTER:
        reason = f"The receiver has accepted nothing since {since:%Y-%m-%d %H:%M} UTC."
        disable(receiver, kind=kind, scope=scope, reason=reason, actor=WORKER)


def disable(receiver: Receiver, *, kind: str, scope: Tenant, reason: str, actor: Actor) -> None:
    """Stop sending to the webhook until somebody enables it again. The caller must hold the row's lock."""
    receiver.enabled, receiver.disabled_reason = False, reason
    receiver.revision += 1
    receiver.updated_at = timezone.now()
    receiver.save(update_fields=["enabled", "disabled_reason", "revision", "updated_at"])
    changes: Mapping[str, Any] = {"enabled": [True, False], "reason": reason}
    audit.record(f"{kind}.disable", actor=actor, scope=scope, resource=(kind, receiver.pk), changes=changes)


def backoff(tries: int, retry_after: str | None, now: datetime) -> timedelta:
    """Return the wait after attempt ``tries``. It grows exponentially. ``Retry-After`` extends it, up to a day."""
    wait: timedelta = FIRST_WAIT * FACTOR ** (tries - 1) * random.uniform(1, 1.2)  # noqa: S311  no secret: the factor only spreads the load
    return max(wait, min(_read_retry_after(retry_after, now), LONGEST_RETRY_AFTER))


def _read_retry_after(retry_after: str | None, now: datetime) -> timedelta:
    """Return the wait in a ``Retry-After`` header: seconds or a date. Zero if unreadable, negative for a past date."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return timedelta(seconds=int(text))
    try:
        moment = parsedate_to_datetime(text)
        return moment.astimezone(UTC) - now
    except (ValueError, OverflowError):
        return timedelta(0)
