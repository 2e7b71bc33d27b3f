"""Webhooks: made, edited, their secrets rotated, tried out, disabled; deliveries asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.tenancy import audit, vault
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment, Organization, Project, Webhook, WebhookDelivery
from apps.tenancy.services.revisions import edit, lock_revision
from apps.tenancy.state import lock
from apps.tenancy.webhooks import outgoing, signing
from apps.tenancy.webhooks.announce import owe, wake
from apps.tenancy.webhooks.events import PING, Outcome
from byteor_cloud.errors import Conflict, InvalidInput

MOST = 20
OVERLAP = timedelta(hours=24)


def _check(organization: Organization, values: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a URL that is never posted to, and for a project or environment of somebody else's."""
    if "url" in values:
        try:
            outgoing.receiver(values["url"], allowed=settings.CONFIG.webhook_allow_private)
        except outgoing.Refused as refused:
            raise InvalidInput.at("/url", str(refused), code="forbidden_url") from None
    here: Mapping[str, Any] = {
        "project_id": Project.objects.live().filter(organization=organization),
        "environment_id": Environment.objects.live().filter(project__organization=organization),
    }
    for name, rows in here.items():
        if values.get(name) is not None and not rows.filter(pk=values[name]).exists():
            what = name.removesuffix("_id")
            raise InvalidInput.at(f"/{name}", f"There is no such {what} here.", code="does_not_exist")


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
    """A webhook and its secret. Raises InvalidInput for a URL that is never posted to; Conflict beyond the most."""
    locked = lock(organization)
    _check(organization, {"url": url, "project_id": project_id, "environment_id": environment_id})
    if Webhook.objects.filter(organization=locked).count() >= MOST:
        raise Conflict(f"An organization has at most {MOST} webhooks.", code="webhook.too_many")
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


def _record(act: str, webhook: Webhook, *, actor: Actor, changes: Mapping[str, Any] | None = None) -> Any:
    resource = ("webhook", webhook.pk)
    return audit.record(f"webhook.{act}", actor=actor, scope=webhook.organization, resource=resource, changes=changes)


@transaction.atomic
def update(
    webhook: Webhook, values: Mapping[str, Any], *, actor: Actor, expected_revision: int | None = None
) -> Webhook:
    """Edit it. Enabled again, it has a clean slate. Raises InvalidInput as ``create`` does."""
    locked = lock_revision(webhook, expected_revision)
    _check(locked.organization, values)
    slate = {"disabled_reason": "", "failing_since": None} if values.get("enabled") else {}
    return edit(
        locked, {**values, **slate}, kind="webhook", scope=locked.organization, actor=actor, unaudited=slate.keys()
    )


@transaction.atomic
def delete(webhook: Webhook, *, actor: Actor, expected_revision: int | None = None) -> None:
    """Gone, with its log; what is owed to it is not sent any more."""
    locked = lock_revision(webhook, expected_revision)
    _record("delete", locked, actor=actor, changes={"url": [locked.url, None]})
    locked.delete()


@transaction.atomic
def rotate_secret(webhook: Webhook, *, actor: Actor) -> tuple[Webhook, str]:
    """A new secret; the one before signs beside it for a day more."""
    locked = lock(webhook)
    secret = signing.generate()
    locked.previous_secret = locked.secret
    locked.previous_secret_until = timezone.now() + OVERLAP
    vault.seal(locked, "secret", secret)
    locked.revision += 1
    locked.updated_at = timezone.now()
    locked.save(update_fields=["previous_secret", "previous_secret_until", "secret", "revision", "updated_at"])
    _record("rotate_secret", locked, actor=actor)
    return locked, signing.text(secret)


def keys(webhook: Webhook) -> list[bytes]:
    """The secrets that sign now, the newest first. Raises VaultError under another master key."""
    names = ["secret"]
    until = webhook.previous_secret_until
    if webhook.previous_secret is not None and until is not None and until > timezone.now():
        names.append("previous_secret")
    return [vault.unseal(webhook, name) for name in names]


@transaction.atomic
def ping(webhook: Webhook, *, actor: Actor) -> WebhookDelivery:
    """Send an event of type ``ping``. Raises Conflict when it is disabled."""
    locked = _enabled(webhook)
    return owe([locked.pk], _record(PING.removeprefix("webhook."), locked, actor=actor))[0]


@transaction.atomic
def redeliver(delivery: WebhookDelivery, *, actor: Actor) -> WebhookDelivery:
    """Send it once more, whatever became of it: the same message under the same id, with all its attempts anew."""
    webhook = _enabled(delivery.webhook)
    locked = lock(delivery, related=("event", "webhook"))
    locked.status, locked.tries = Outcome.PENDING, 0
    locked.next_attempt_at, locked.finished_at = timezone.now(), None
    locked.save(update_fields=["status", "tries", "next_attempt_at", "finished_at"])
    _record("redeliver", webhook, actor=actor, changes={"delivery": str(locked.pk)})
    wake(webhook.pk, webhook.organization_id)
    return locked


def _enabled(webhook: Webhook) -> Webhook:
    locked = lock(webhook)
    if not locked.enabled:
        raise Conflict("The webhook is disabled.", code="webhook.disabled")
    return locked


def disable(webhook: Webhook, *, reason: str, actor: Actor) -> None:
    """No more for this receiver until somebody enables it again; the caller holds its lock."""
    webhook.enabled, webhook.disabled_reason = False, reason
    webhook.revision += 1
    webhook.updated_at = timezone.now()
    webhook.save(update_fields=["enabled", "disabled_reason", "revision", "updated_at"])
    _record("disable", webhook, actor=actor, changes={"enabled": [True, False], "reason": reason})
