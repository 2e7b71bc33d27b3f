"""The functions that run this app's jobs."""

from __future__ import annotations

from uuid import UUID

from apps.notifications.jobs import DELETE_OLD, SWEEP, WAKE, HandleEvents, SendChat
from apps.notifications.services import handling, housekeeping
from apps.notifications.services.chat import deliveries, sending
from byteor_cloud.worker.jobs import runs, runs_periodically


@runs(HandleEvents)
def handle_events(job: HandleEvents) -> None:
    """Find out who gets messages about an organization's new events."""
    handling.handle_pending(UUID(job.organization_id))


@runs(SendChat)
def send_chat(job: SendChat) -> None:
    """Send the due messages of one chat webhook."""
    sending.send_due(UUID(job.chat_webhook_id))


@runs_periodically(WAKE)
def wake() -> None:
    """Enqueue jobs for new events, and for due messages of chat webhooks."""
    handling.enqueue_pending()
    deliveries.enqueue_due()


@runs_periodically(SWEEP)
def sweep() -> None:
    """Group repeated events."""
    handling.summarize_grouped()


@runs_periodically(DELETE_OLD)
def delete_old() -> None:
    """Delete old events and notifications."""
    housekeeping.delete_old()
