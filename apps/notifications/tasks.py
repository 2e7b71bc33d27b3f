"""The functions that run this app's jobs."""

from __future__ import annotations

from uuid import UUID

from apps.notifications.jobs import DELETE_OLD, SWEEP, WAKE, HandleEvents, SendChat, SendMails
from apps.notifications.services import handling, housekeeping, limits
from apps.notifications.services.chat import deliveries
from apps.notifications.services.chat import sending as chat
from apps.notifications.services.mail import sending as mail
from apps.notifications.services.sweeps import agents, approvals, credentials, organization
from byteor_cloud.worker.jobs import Claim, runs, runs_claimed, runs_periodically

SWEEPS = (
    agents.record_offline_and_failed,
    agents.record_clones,
    approvals.record_last_calls,
    credentials.record_expiring,
    organization.record_failing_webhooks,
    organization.record_used_quotas,
    limits.summarize,
)


@runs(HandleEvents)
def handle_events(job: HandleEvents) -> None:
    """Notify people about an organization's new events."""
    handling.handle_pending(UUID(job.organization_id))


@runs_claimed(SendMails)
def send_mails(claim: Claim, job: SendMails) -> None:
    """Send an organization's due e-mails."""
    mail.send_due(UUID(job.organization_id), claim)


@runs(SendChat)
def send_chat(job: SendChat) -> None:
    """Send the due messages of one chat webhook."""
    chat.send_due(UUID(job.chat_webhook_id))


@runs_periodically(WAKE)
def wake() -> None:
    """Enqueue jobs for new events, and for due e-mails and chat messages."""
    handling.enqueue_pending()
    mail.enqueue_due()
    deliveries.enqueue_due()


@runs_periodically(SWEEP)
def sweep() -> None:
    """Record the events that the sweeps find, and summarize grouped events. Runs all sweeps even if one fails."""
    errors = []
    for each in SWEEPS:
        try:
            each()
        except Exception as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("sweeps of events failed", errors)


@runs_periodically(DELETE_OLD)
def delete_old() -> None:
    """Delete old events, notifications and deliveries to chat webhooks."""
    housekeeping.delete_old()
