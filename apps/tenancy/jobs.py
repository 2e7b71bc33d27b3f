"""The job classes and periodic jobs of this app. ``tasks.py`` has the functions that run them."""

from __future__ import annotations

from byteor_cloud.worker.jobs import Job, JobLane, Periodic


class PurgeProject(Job, name="tenancy.purge_project", lane=JobLane.CLEANING):
    """Delete the rows of a project that is marked as deleted."""

    id: str


class PurgeEnvironment(Job, name="tenancy.purge_environment", lane=JobLane.CLEANING):
    """Delete the rows of an environment that is marked as deleted."""

    id: str


class DeliverWebhooks(Job, name="tenancy.deliver_webhooks", lane=JobLane.WEBHOOKS):
    """Send the due deliveries of one webhook."""

    webhook_id: str


WAKE_WEBHOOKS = Periodic("tenancy.wake_webhooks", every_s=5)
SEAL_AUDIT = Periodic("tenancy.seal_audit", every_s=3)
SEAL_REST = Periodic("tenancy.seal_rest", every_s=3600, at_s=41 * 60, lane=JobLane.CLEANING)
NOTE_KEYS = Periodic("tenancy.note_keys", every_s=5)
CLOSE_MINUTE = Periodic("tenancy.close_minute", every_s=60)
COUNT_USE = Periodic("tenancy.count_use", every_s=60, lane=JobLane.CLEANING)
DELETE_OLD_SIGN_INS = Periodic("tenancy.forget_sign_ins", every_s=3600, at_s=7 * 60, lane=JobLane.CLEANING)
DELETE_OLD_CREDENTIALS = Periodic("tenancy.forget_credentials", every_s=3600, at_s=11 * 60, lane=JobLane.CLEANING)
DELETE_OLD_DELIVERIES = Periodic("tenancy.forget_deliveries", every_s=3600, at_s=23 * 60, lane=JobLane.CLEANING)
DELETE_OLD_HOSTS = Periodic("tenancy.forget_hosts", every_s=3600, at_s=59 * 60, lane=JobLane.CLEANING)
DELETE_OLD_JOBS = Periodic("tenancy.forget_jobs", every_s=3600, at_s=53 * 60, lane=JobLane.CLEANING)
