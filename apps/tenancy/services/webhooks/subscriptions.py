"""Create, edit, test, disable and delete webhooks, rotate their secrets, and repeat their deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.tenancy.actors import Actor
from apps.tenancy.models import AuditEvent, Environment, Organization, Project, Webhook, WebhookDelivery
from apps.tenancy.services import audit, vault
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.services.state import lock_row
from apps.tenancy.services.webhooks import outgoing, signing
from apps.tenancy.services.webhooks.announce import create_deliveries, enqueue_sending
from apps.tenancy.webhook_events import PING, Outcome
from byteor_cloud.errors import Conflict, InvalidInput

MAX_WEBHOOKS = 20
SECRET_OVERLAP = timedelta(hours=24)


def check_url(url: str) -> outgoing.Receiver:
    """Return the parts of a receiver's URL. Raises InvalidInput if the URL is forbidden."""
    try:
        return outgoing.parse_url(url, allowed=settings.CONFIG.webhook_allow_private)
    except outgoing.ForbiddenReceiver as forbidden:
        raise InvalidInput.at("/url", str(forbidden), code="forbidden_url") from None


def _check(organization: Organization, values: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a forbidden URL, or for a project or environment that the organization does not have."""
    if "url" in values:
        check_url(values["url"])
    permitted_rows: Mapping[str, Any] = {
        "project_id": Project.objects.live().filter(organization=organization),
        "environment_id": Environment.objects.live().filter(project__organization=organization),
    }
    for name, rows in permitted_rows.items():
        if values.get(name) is not None and not rows.filter(pk=values[name]).exists():
            kind = name.removesuffix("_id")
            detail = f"This organization has no {kind} with this id."
            raise InvalidInput.at(f"/{name}", detail, code="does_not_exist")


@transaction.atomic
def create(
    *,
    organization: Organization,
    url: str,
    events: Sequence[str],
    description: str = "",
    enabled: bool = True,
    project_id: UUID | None = None,
    environment_id: UUID | None = None,
    actor: Actor,
) -> tuple[Webhook, str]:
    """Create a webhook; return the webhook and its secret.

    Raises InvalidInput as ``_check`` does, and Conflict if the organization already has ``MAX_WEBHOOKS`` webhooks.
    """
    locked = lock_row(organization)
    _check(organization, {"url": url, "project_id": project_id, "environment_id": environment_id})
    if Webhook.objects.filter(organization=locked).count() >= MAX_WEBHOOKS:
        detail = f"An organization can have at most {MAX_WEBHOOKS} webhooks. Delete one first."
        raise Conflict(detail, code="webhook.too_many")
    webhook = Webhook(
        organization=organization,
        project_id=project_id,
        environment_id=environment_id,
        url=url,
        description=description,
        events=list(events),
        enabled=enabled,
    )
    secret = signing.generate()
    vault.seal(webhook, "secret", secret)
    webhook.save(force_insert=True)
    _record("create", webhook, actor=actor, changes={"url": [None, url], "events": [None, list(events)]})
    return webhook, signing.text(secret)


def _record(
    verb: str,
    webhook: Webhook,
    *,
    actor: Actor,
    changes: Mapping[str, Any] | None = None,
    subject: tuple[str, object] | None = None,
) -> AuditEvent:
    return audit.record(
        f"webhook.{verb}",
        actor=actor,
        scope=webhook.organization,
        resource=("webhook", webhook.pk),
        changes=changes,
        subject=subject,
    )


@transaction.atomic
def update(
    webhook: Webhook, values: Mapping[str, Any], *, actor: Actor, expected_revision: int | None = None
) -> Webhook:
    """Edit a webhook. Setting ``enabled`` to true clears ``disabled_reason`` and ``failing_since``.

    Raises InvalidInput as ``create`` does, and the errors of ``lock_revision``.
    """
    locked = lock_revision(webhook, expected_revision)
    _check(locked.organization, values)
    cleared = {"disabled_reason": "", "failing_since": None} if values.get("enabled") else {}
    return edit(
        locked, {**values, **cleared}, kind="webhook", scope=locked.organization, actor=actor, unaudited=cleared.keys()
    )


@transaction.atomic
def delete(webhook: Webhook, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Delete a webhook with its log. Pending deliveries are not sent. Raises the errors of ``lock_revision``."""
    locked = lock_revision(webhook, expected_revision)
    _record("delete", locked, actor=actor, changes={"url": [locked.url, None]})
    locked.delete()


@transaction.atomic
def rotate_secret(webhook: Webhook, *, actor: Actor) -> tuple[Webhook, str]:
    """Replace the secret; return the webhook and the new secret. The previous secret also signs for 24 hours."""
    locked = lock_row(webhook)
    secret = signing.generate()
    locked.previous_secret = locked.secret
    locked.previous_secret_until = timezone.now() + SECRET_OVERLAP
    vault.seal(locked, "secret", secret)
    locked.revision += 1
    locked.updated_at = timezone.now()
    locked.save(update_fields=["previous_secret", "previous_secret_until", "secret", "revision", "updated_at"])
    _record("rotate_secret", locked, actor=actor)
    return locked, signing.text(secret)


def signing_secrets(webhook: Webhook) -> list[bytes]:
    """Return the secrets that sign messages now, newest first. Raises the same errors as ``vault.unseal``."""
    names = ["secret"]
    until = webhook.previous_secret_until
    if webhook.previous_secret is not None and until is not None and until > timezone.now():
        names.append("previous_secret")
    return [vault.unseal(webhook, name) for name in names]


@transaction.atomic
def ping(webhook: Webhook, *, actor: Actor) -> WebhookDelivery:
    """Create a delivery of an event of type ``ping``. Raises Conflict if the webhook is disabled.

    If an organization key repeats this in the same minute, the same message is sent again with the same id.
    """
    locked = _lock_enabled(webhook)
    return create_deliveries([locked.pk], _record(PING.removeprefix("webhook."), locked, actor=actor))[0]


@transaction.atomic
def redeliver(delivery: WebhookDelivery, *, actor: Actor) -> WebhookDelivery:
    """Send a delivery again, even if it succeeded: the same message, the same id, and a new series of attempts.

    Raises Conflict if the webhook is disabled.
    """
    webhook = _lock_enabled(delivery.webhook)
    locked = lock_row(delivery, related=("event", "webhook"))
    locked.status, locked.tries = Outcome.PENDING, 0
    locked.next_attempt_at, locked.finished_at = timezone.now(), None
    locked.save(update_fields=["status", "tries", "next_attempt_at", "finished_at"])
    changes, subject = {"delivery": str(locked.pk)}, ("delivery", locked.pk)
    _record("redeliver", webhook, actor=actor, changes=changes, subject=subject)
    enqueue_sending(webhook.pk, webhook.organization_id)
    return locked


def _lock_enabled(webhook: Webhook) -> Webhook:
    locked = lock_row(webhook)
    if not locked.enabled:
        raise Conflict("The webhook is disabled. Enable it first.", code="webhook.disabled")
    return locked
