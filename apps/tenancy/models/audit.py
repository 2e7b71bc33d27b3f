"""The audit trail: events, the seals that chain them, and counts of denials and repetitions."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Func, IntegerField, Q, TextField
from django.db.models.functions import Cast
from django.db.models.lookups import LessThanOrEqual
from django.utils import timezone

from apps.tenancy.audit_changes import MAX_BYTES
from apps.tenancy.models.organizations import Organization
from byteor_cloud.ids import uuid7


class AuditEvent(models.Model):
    """One audit event. Append-only: a database trigger rejects UPDATE, DELETE and TRUNCATE.

    An event without an organization belongs to the installation's own chain. Project, environment and resource are
    plain ids without foreign keys, because an event outlives the rows that it describes.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    timestamp = models.DateTimeField(default=timezone.now)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="+")
    project_id = models.UUIDField(null=True)
    environment_id = models.UUIDField(null=True)
    resource_kind = models.CharField(max_length=40)
    resource_id = models.CharField(max_length=80)
    action = models.CharField(max_length=80)
    outcome = models.CharField(max_length=10)
    actor_kind = models.CharField(max_length=20)
    actor_id = models.CharField(max_length=80)
    actor_display = models.CharField(max_length=300)
    request_id = models.CharField(max_length=64, blank=True)
    ip = models.GenericIPAddressField(null=True)
    changes = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-id"], name="tenancy_auditevent_org"),
            models.Index(fields=["resource_id"], name="tenancy_auditevent_resource"),
            # The list is filtered by these columns. Without an index, a filter by a rare value would read all events.
            models.Index(fields=["organization", "action", "id"], name="tenancy_auditevent_action"),
            models.Index(fields=["organization", "actor_id", "id"], name="tenancy_auditevent_actor"),
            models.Index(fields=["organization", "resource_kind", "id"], name="tenancy_auditevent_kind"),
            models.Index(
                fields=["environment_id", "id"],
                condition=Q(environment_id__isnull=False),
                name="tenancy_auditevent_environment",
            ),
            models.Index(
                fields=["project_id", "id"], condition=Q(project_id__isnull=False), name="tenancy_auditevent_project"
            ),
            models.Index(
                fields=["organization", "id"], condition=~Q(outcome="success"), name="tenancy_auditevent_refused"
            ),
            # Most events are the system's. These two indexes leave them out, so they cost few writes.
            models.Index(
                fields=["organization", "id"], condition=Q(actor_kind="user"), name="tenancy_auditevent_people"
            ),
            models.Index(fields=["request_id"], condition=~Q(request_id=""), name="tenancy_auditevent_request"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome__in=["success", "denied", "error"]), name="tenancy_auditevent_outcome"
            ),
            # The migration adds this constraint as NOT VALID, so it applies only to new rows: older rows may be larger.
            models.CheckConstraint(
                condition=LessThanOrEqual(
                    Func(Cast(F("changes"), TextField()), function="octet_length", output_field=IntegerField()),
                    MAX_BYTES,
                ),
                name="tenancy_auditevent_changes_size",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.resource_id}"


class AuditSeal(models.Model):
    """One link in the hash chain of an organization (null: of the installation). Append-only, like the events."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="+")
    seq = models.BigIntegerField()
    event = models.OneToOneField(AuditEvent, on_delete=models.PROTECT, related_name="seal")
    prev_hash = models.CharField(max_length=71)
    hash = models.CharField(max_length=71)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "seq"], name="tenancy_auditseal_unique_seq"),
            models.UniqueConstraint(
                fields=["seq"], condition=Q(organization=None), name="tenancy_auditseal_unique_installation_seq"
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.seq}"


class DenialCount(models.Model):
    """How often an actor was denied an action within one minute. Later, one audit event records the count."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, null=True, related_name="+")
    actor_kind = models.CharField(max_length=20)
    actor_id = models.CharField(max_length=80)
    actor_display = models.CharField(max_length=300)
    action = models.CharField(max_length=80)
    minute = models.DateTimeField()
    count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "actor_kind", "actor_id", "action", "minute"],
                nulls_distinct=False,
                name="tenancy_denialcount_unique",
            )
        ]

    def __str__(self) -> str:
        return f"{self.actor_display} {self.action} x{self.count}"


class RepeatedEvent(models.Model):
    """How often an organization key repeated an event within one minute.

    After that minute, all repetitions are recorded as one event. ``event`` is the first event, which is recorded
    immediately. ``resource_id``, ``request_id``, ``ip`` and ``last_at`` are those of the last repetition. ``changes``
    has the last value of each field that any repetition changed.
    """

    event = models.ForeignKey(AuditEvent, on_delete=models.PROTECT, related_name="+")
    actor_id = models.CharField(max_length=80)
    action = models.CharField(max_length=80)
    subject = models.CharField(max_length=130)
    minute = models.DateTimeField()
    count = models.PositiveIntegerField(default=0)
    resource_id = models.CharField(max_length=80)
    request_id = models.CharField(max_length=64, blank=True)
    ip = models.GenericIPAddressField(null=True)
    changes = models.JSONField(default=dict)
    last_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["actor_id", "action", "subject", "minute"], name="tenancy_repeatedevent_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.event} x{self.count}"
