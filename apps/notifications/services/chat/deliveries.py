"""Create the deliveries of an event to chat webhooks, and enqueue the jobs that send them."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Max, Q
from django.utils import timezone

from apps.notifications.jobs import SendChat
from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.tenancy.message_types import CHOOSABLE, MessageType
from apps.tenancy.models import Membership, MessageEvent
from apps.tenancy.webhook_events import Outcome
from byteor_cloud.worker.jobs import enqueue

ANY = "*"
EVENTS = (ANY, *CHOOSABLE)
"""The events to which a chat webhook can subscribe. Messages that concern only one person are never sent to a chat."""
OF_ORGANIZATION = frozenset({MessageType.WEBHOOK_FAILING, MessageType.QUOTA_NEAR})
"""These events are sent only to organization-wide chat webhooks, even if an event belongs to a project."""


def create_deliveries(event: MessageEvent) -> None:
    """Create a delivery for each enabled chat webhook that receives the event. ``enqueue_due`` enqueues the sending.

    Call this in the transaction that handles the event.
    """
    if _is_personal(event):
        return
    project_id = None if event.type in OF_ORGANIZATION else event.project_id
    environment_id = None if event.type in OF_ORGANIZATION else event.environment_id
    receivers = ChatWebhook.objects.filter(
        Q(project=None) | Q(project=project_id),
        Q(environment=None) | Q(environment=environment_id),
        organization=event.organization_id,
        enabled=True,
    ).only("events", "failing_since")
    now = timezone.now()
    failing = [each.pk for each in receivers if each.failing_since is not None]
    later = ChatDelivery.objects.filter(webhook__in=failing, status=Outcome.PENDING).order_by().values_list("webhook")
    next_attempts = dict(later.annotate(at=Max("next_attempt_at"))) if failing else {}
    ChatDelivery.objects.bulk_create(
        ChatDelivery(webhook=each, event=event, next_attempt_at=max(now, next_attempts.get(each.pk) or now))
        for each in receivers
        if ANY in each.events or event.type in each.events
    )


def _is_personal(event: MessageEvent) -> bool:
    """Return whether the event concerns only one person."""
    return event.type == MessageType.INVITATION or (
        event.type == MessageType.KEY_EXPIRES and event.resource_kind == "user_token"
    )


def enqueue_due() -> None:
    """Enqueue a job for each chat webhook with due deliveries, unless a job from an earlier call is still waiting."""
    due = ChatDelivery.objects.due(timezone.now()).order_by()
    for webhook_id, organization_id in due.values_list("webhook_id", "webhook__organization_id").distinct():
        enqueue_sending(webhook_id, organization_id, once=True)


def enqueue_sending(webhook_id: UUID, organization_id: UUID, *, once: bool = False) -> None:
    """Enqueue a job that sends the due messages of a chat webhook. Jobs of the same webhook run one after another.

    ``once`` enqueues nothing if another job that was enqueued with ``once`` is already waiting. Do not use ``once`` in
    a transaction that changes other rows, because concurrent transactions would wait for its commit.
    """
    key = f"chat_webhook:{webhook_id}"
    enqueue(
        SendChat(chat_webhook_id=str(webhook_id)),
        organization=organization_id,
        person=Membership.first_admin(organization_id),
        serial=key,
        once=key if once else None,
    )
