"""The worker's jobs of this app."""

from __future__ import annotations

from uuid import UUID

from apps.tenancy import audit
from apps.tenancy import jobs as kinds
from apps.tenancy.jobs import DeliverWebhooks, PurgeEnvironment, PurgeProject
from apps.tenancy.models import Environment, Project
from apps.tenancy.services import housekeeping, organizations, signing_keys
from apps.tenancy.webhooks import delivery
from byteor_cloud import jobs
from byteor_cloud.jobs import runs, runs_periodically


@runs(PurgeProject)
def purge_project(job: PurgeProject) -> None:
    """Remove a deleted project and all below it."""
    organizations.purge(Project, job.id)


@runs(PurgeEnvironment)
def purge_environment(job: PurgeEnvironment) -> None:
    """Remove a deleted environment and all below it."""
    organizations.purge(Environment, job.id)


@runs(DeliverWebhooks)
def deliver_webhooks(job: DeliverWebhooks) -> None:
    """Send one receiver what it is owed."""
    delivery.deliver_due(UUID(job.webhook_id))


@runs_periodically(kinds.WAKE_WEBHOOKS)
def wake_webhooks() -> None:
    """Retries whose time has come."""
    delivery.wake_due()


@runs_periodically(kinds.SEAL_AUDIT)
def seal_audit() -> None:
    """Append new audit events to their chains."""
    audit.seal_all()


@runs_periodically(kinds.SEAL_REST)
def seal_rest() -> None:
    """Append what was left, wherever it is: of an organization that was quiet since."""
    audit.seal_all(whole=True)


@runs_periodically(kinds.NOTE_KEYS)
def note_keys() -> None:
    """Signing keys that became active, and those that are over."""
    signing_keys.note_all()


@runs_periodically(kinds.CLOSE_MINUTE)
def close_minute() -> None:
    """Denials of the minute that is over become events; its counters and old idempotency keys end."""
    audit.close_denials()
    housekeeping.forget_requests()


@runs_periodically(kinds.FORGET_SIGN_INS)
def forget_sign_ins() -> None:
    """Sessions that are over, and what abandoned sign-ins left behind."""
    housekeeping.forget_sign_ins()


@runs_periodically(kinds.FORGET_CREDENTIALS)
def forget_credentials() -> None:
    """Tokens, keys and one-time links that ended long ago."""
    housekeeping.forget_credentials()


@runs_periodically(kinds.FORGET_DELIVERIES)
def forget_deliveries() -> None:
    """Old lines of the webhooks' delivery logs."""
    delivery.forget_old()


@runs_periodically(kinds.FORGET_JOBS)
def forget_jobs() -> None:
    """Dead letters past their time, and the log of the queue."""
    jobs.delete_old_rows()
