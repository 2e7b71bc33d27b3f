"""The worker's jobs of this app."""

from __future__ import annotations

from uuid import UUID

from apps.tenancy import audit
from apps.tenancy.models import Environment, Project
from apps.tenancy.services import housekeeping, organizations, signing_keys
from apps.tenancy.webhooks import delivery
from byteor_cloud import jobs
from byteor_cloud.jobs import Lane, job, periodic


@job("tenancy.purge_project", lane=Lane.CLEANING)
def purge_project(id: str) -> None:
    """Remove a deleted project and all below it."""
    organizations.purge(Project, id)


@job("tenancy.purge_environment", lane=Lane.CLEANING)
def purge_environment(id: str) -> None:
    """Remove a deleted environment and all below it."""
    organizations.purge(Environment, id)


@job("tenancy.deliver_webhooks", lane=Lane.WEBHOOKS)
def deliver_webhooks(webhook_id: str) -> None:
    """Send one receiver what it is owed."""
    delivery.deliver_due(UUID(webhook_id))


@periodic("tenancy.wake_webhooks", every_s=5)
def wake_webhooks() -> None:
    """Retries whose time has come."""
    delivery.wake_due()


@periodic("tenancy.seal_audit", every_s=3)
def seal_audit() -> None:
    """Append new audit events to their chains."""
    audit.seal_all()


@periodic("tenancy.seal_rest", every_s=3600, at_s=41 * 60, lane=Lane.CLEANING)
def seal_rest() -> None:
    """Append what was left, wherever it is: of an organization that was quiet since."""
    audit.seal_all(whole=True)


@periodic("tenancy.note_keys", every_s=5)
def note_keys() -> None:
    """Signing keys that became active, and those that are over."""
    signing_keys.note_all()


@periodic("tenancy.close_minute", every_s=60)
def close_minute() -> None:
    """Denials of the minute that is over become events; its counters and old idempotency keys end."""
    audit.close_denials()
    housekeeping.forget_requests()


@periodic("tenancy.forget_sign_ins", every_s=3600, at_s=7 * 60, lane=Lane.CLEANING)
def forget_sign_ins() -> None:
    """Sessions that are over, and what abandoned sign-ins left behind."""
    housekeeping.forget_sign_ins()


@periodic("tenancy.forget_credentials", every_s=3600, at_s=11 * 60, lane=Lane.CLEANING)
def forget_credentials() -> None:
    """Tokens, keys and one-time links that ended long ago."""
    housekeeping.forget_credentials()


@periodic("tenancy.forget_deliveries", every_s=3600, at_s=23 * 60, lane=Lane.CLEANING)
def forget_deliveries() -> None:
    """Old lines of the webhooks' delivery logs."""
    delivery.forget_old()


@periodic("tenancy.forget_jobs", every_s=3600, at_s=53 * 60, lane=Lane.CLEANING)
def forget_jobs() -> None:
    """Dead letters past their time, and the log of the queue."""
    jobs.forget_old()
