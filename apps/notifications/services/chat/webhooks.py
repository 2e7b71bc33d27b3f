"""Create, edit, test and delete chat webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.notifications.services.chat.deliveries import enqueue_sending
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Organization, Project, tenant_ids
from apps.tenancy.services import audit, vault
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import lock_row
from apps.tenancy.services.webhooks.subscriptions import check_url
from byteor_cloud.errors import Conflict
from byteor_cloud.server.addresses import bracketed

MAX_CHAT_WEBHOOKS = 20
_KIND = "chat_webhook"


def scope_of(webhook: ChatWebhook) -> Organization | Project | Environment:
    """Return the environment or project to which the webhook is limited, or the organization."""
    return webhook.environment or webhook.project or webhook.organization


@transaction.atomic
def create(
    *,
    scope: Organization | Project | Environment,
    name: str,
    format: str,
    url: str,
    events: Sequence[str],
    enabled: bool = True,
    actor: Actor,
) -> ChatWebhook:
    """Create a chat webhook that receives the events of ``scope``.

    Raises InvalidInput for a forbidden URL, and Conflict if the organization already has ``MAX_CHAT_WEBHOOKS``.
    """
    webhook = ChatWebhook(
        **tenant_ids(scope),
        name=name,
        format=format,
        events=list(events),
        enabled=enabled,
    )
    organization = lock_row(webhook.organization)
    _set_url(webhook, url)
    if ChatWebhook.objects.filter(organization=organization).count() >= MAX_CHAT_WEBHOOKS:
        detail = f"An organization can have at most {MAX_CHAT_WEBHOOKS} chat webhooks. Delete one first."
        raise Conflict(detail, code="chat_webhook.too_many")
    webhook.save(force_insert=True)
    shown = {"name": name, "format": format, "host": webhook.host, "events": list(events)}
    _record("create", webhook, actor=actor, changes={field: [None, value] for field, value in shown.items()})
    return webhook


def _set_url(webhook: ChatWebhook, url: str) -> None:
    """Store the encrypted URL, and its host as plain text, in the row. Raises InvalidInput for a forbidden URL."""
    receiver = check_url(url)
    usual = {"https": 443, "http": 80}[receiver.scheme]
    webhook.host = receiver.host if receiver.port == usual else f"{bracketed(receiver.host)}:{receiver.port}"
    vault.seal(webhook, "url", url.encode())


@transaction.atomic
def update(
    webhook: ChatWebhook, values: Mapping[str, Any], *, actor: Actor, expected_revision: int | None = None
) -> ChatWebhook:
    """Edit a chat webhook.

    Setting ``enabled`` to true clears ``disabled_reason`` and ``failing_since``. Setting the URL clears
    ``failing_since``.

    Raises InvalidInput for a forbidden URL, and the errors of ``lock_revision``.
    """
    locked = lock_revision(webhook, expected_revision)
    changed = dict(values)
    cleared: dict[str, Any] = {"disabled_reason": "", "failing_since": None} if values.get("enabled") else {}
    if "url" in values:
        sealed = ChatWebhook(pk=locked.pk, organization_id=locked.organization_id)
        _set_url(sealed, values["url"])
        changed |= {"url": sealed.url, "host": sealed.host}
        cleared["failing_since"] = None
    return edit(
        locked, {**changed, **cleared}, kind=_KIND, scope=scope_of(locked), actor=actor, unaudited=cleared.keys()
    )


@transaction.atomic
def delete(webhook: ChatWebhook, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Delete a chat webhook. Pending messages are not sent. Raises the errors of ``lock_revision``."""
    locked = lock_revision(webhook, expected_revision)
    _record("delete", locked, actor=actor, changes={"name": [locked.name, None], "host": [locked.host, None]})
    locked.delete()


@transaction.atomic
def test(webhook: ChatWebhook, *, actor: Actor) -> ChatDelivery:
    """Create the delivery of a test message. Raises Conflict if the webhook is disabled."""
    locked = lock_row(webhook)
    if not locked.enabled:
        raise Conflict("The chat webhook is disabled. Enable it first.", code="chat_webhook.disabled")
    _record("test", locked, actor=actor)
    delivery = ChatDelivery.objects.create(webhook=locked, next_attempt_at=timezone.now())
    enqueue_sending(locked.pk, locked.organization_id)
    return delivery


def _record(verb: str, webhook: ChatWebhook, *, actor: Actor, changes: Mapping[str, Any] | None = None) -> None:
    audit.record(f"{_KIND}.{verb}", actor=actor, scope=scope_of(webhook), resource=(_KIND, webhook.pk), changes=changes)
