"""The worker's jobs of this app."""

from __future__ import annotations

from uuid import UUID

from apps.tenancy import audit
from apps.tenancy.models import Environment, Project
from apps.tenancy.services import housekeeping, organizations, signing_keys
from apps.tenancy.webhooks import delivery
from byteor_cloud.jobs import OUTBOUND_QUEUE, job, periodic


@job("tenancy.purge_project")
def purge_project(id: str) -> None:
    """Remove a deleted project and all below it."""
    organizations.purge(Project, id)


@job("tenancy.purge_environment")
def purge_environment(id: str) -> None:
    """Remove a deleted environment and all below it."""
    organizations.purge(Environment, id)


@job("tenancy.deliver_webhooks", queue=OUTBOUND_QUEUE)
def deliver_webhooks(webhook_id: str) -> None:
    """Send one receiver what it is owed."""
    delivery.deliver_due(UUID(webhook_id))


@periodic("tenancy.wake_webhooks", cron="* * * * * */5")
def wake_webhooks() -> None:
    """Retries whose time has come."""
    delivery.wake_due()


@periodic("tenancy.seal_audit", cron="* * * * * */3")
def seal_audit() -> None:
    """Append new audit events to their chains."""
    audit.seal_all()


@periodic("tenancy.seal_rest", cron="41 * * * *")
def seal_rest() -> None:
    """Append what was left, wherever it is: of an organization that was quiet since."""
    audit.seal_all(whole=True)


@periodic("tenancy.note_keys", cron="* * * * * */5")
def note_keys() -> None:
    """Signing keys that became active, and those that are over."""
    signing_keys.note_all()


@periodic("tenancy.close_minute", cron="* * * * *")
def close_minute() -> None:
    """Denials of the minute that is over become events; its counters and old idempotency keys end."""
    audit.close_denials()
    housekeeping.forget_requests()


@periodic("tenancy.forget_sign_ins", cron="7 * * * *")
def forget_sign_ins() -> None:
    """Sessions that are over, and what abandoned sign-ins left behind."""
    housekeeping.forget_sign_ins()


@periodic("tenancy.forget_credentials", cron="11 * * * *")
def forget_credentials() -> None:
    """Tokens, keys and one-time links that ended long ago."""
    housekeeping.forget_credentials()


@periodic("tenancy.forget_deliveries", cron="23 * * * *")
def forget_deliveries() -> None:
    """Old lines of the webhooks' delivery logs."""
    delivery.forget_old()
