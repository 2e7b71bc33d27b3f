"""The jobs of this app. The functions that run them are in ``tasks.py``."""

from __future__ import annotations

from byteor_cloud.worker.jobs import Job, JobLane, Periodic


class HandleEvents(Job, name="notifications.handle_events", lane=JobLane.MESSAGES):
    """Notify people about an organization's new events."""

    organization_id: str


class SendMails(Job, name="notifications.send_mails", lane=JobLane.MAIL):
    """Send an organization's due e-mails."""

    organization_id: str


class SendChat(Job, name="notifications.send_chat", lane=JobLane.CHAT):
    """Send the due messages of one chat webhook."""

    chat_webhook_id: str


WAKE = Periodic("notifications.wake", every_s=3)
SWEEP = Periodic("notifications.sweep", every_s=60)
DELETE_OLD = Periodic("notifications.delete_old", every_s=3600, at_s=37 * 60, lane=JobLane.CLEANING)
