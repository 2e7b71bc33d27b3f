"""The functions that run this app's jobs in the worker."""

from __future__ import annotations

from uuid import UUID

from apps.tenancy import jobs as kinds
from apps.tenancy.jobs import DeliverWebhooks, PurgeEnvironment, PurgeProject
from apps.tenancy.models import Environment, Project
from apps.tenancy.services import audit, hosts, housekeeping, ledger, organizations, signing_keys, usage
from apps.tenancy.services.webhooks import delivery
from byteor_cloud.worker import dead_letters
from byteor_cloud.worker.jobs import runs, runs_periodically


@runs(PurgeProject)
def purge_project(job: PurgeProject) -> None:
    """Delete the rows of a project that is marked as deleted."""
    organizations.purge(Project, job.id)


@runs(PurgeEnvironment)
def purge_environment(job: PurgeEnvironment) -> None:
    """Delete the rows of an environment that is marked as deleted."""
    organizations.purge(Environment, job.id)


@runs(DeliverWebhooks)
def deliver_webhooks(job: DeliverWebhooks) -> None:
    """Send the due deliveries of one webhook."""
    delivery.deliver_due(UUID(job.webhook_id))


@runs_periodically(kinds.WAKE_WEBHOOKS)
def wake_webhooks() -> None:
    """Enqueue a job for each webhook with due deliveries, unless the job of an earlier run is still waiting."""
    delivery.enqueue_due()


@runs_periodically(kinds.SEAL_AUDIT)
def seal_audit() -> None:
    """Append new audit events to their chains."""
    ledger.seal_all()


@runs_periodically(kinds.SEAL_REST)
def seal_rest() -> None:
    """Seal unsealed events of any age. ``seal_audit`` only checks recent events."""
    ledger.seal_all(whole=True)


@runs_periodically(kinds.NOTE_KEYS)
def note_keys() -> None:
    """Store the new status of signing keys that have become active, retiring or retired."""
    signing_keys.update_all_statuses()


@runs_periodically(kinds.CLOSE_MINUTE)
def close_minute() -> None:
    """Record the denials and repetitions of past minutes.

    Also delete old rate counters, idempotency keys, and sign-in requests of machines.
    """
    audit.close_denials()
    audit.close_repetitions()
    housekeeping.delete_old_requests()


@runs_periodically(kinds.COUNT_USE)
def count_use() -> None:
    """Sum up the usage of organizations, store the month's peaks, and delete old counts."""
    usage.count_use()


@runs_periodically(kinds.DELETE_OLD_SIGN_INS)
def delete_old_sign_ins() -> None:
    """Delete expired sessions and the leftovers of abandoned sign-ins."""
    housekeeping.delete_old_sign_ins()


@runs_periodically(kinds.DELETE_OLD_CREDENTIALS)
def delete_old_credentials() -> None:
    """Delete user tokens and organization keys that became invalid over 90 days ago, and old sign-in links."""
    housekeeping.delete_old_credentials()


@runs_periodically(kinds.DELETE_OLD_DELIVERIES)
def delete_old_deliveries() -> None:
    """Delete webhook deliveries that are older than 30 days."""
    delivery.delete_old_deliveries()


@runs_periodically(kinds.DELETE_OLD_HOSTS)
def delete_old_hosts() -> None:
    """Delete hosts that were last seen more than a day ago."""
    hosts.delete_old_hosts()


@runs_periodically(kinds.DELETE_OLD_JOBS)
def delete_old_jobs() -> None:
    """Delete dead letters that are too old or too many, and most of the queue's old events."""
    dead_letters.delete_old_jobs()
