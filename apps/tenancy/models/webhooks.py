"""Webhook subscriptions and their delivery log."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from django.db import models
from django.db.models import Q

from apps.tenancy.models.audit import AuditEvent
from apps.tenancy.models.base import Revisioned, Row, enum_choices, one_of_constraint
from apps.tenancy.models.organizations import Environment, Organization, Project
from apps.tenancy.models.sealed_field import SealedField
from apps.tenancy.webhook_events import Outcome, type_of


class Receiver(Row, Revisioned):
    """Base of webhooks and chat webhooks: the events that they receive, and whether deliveries are failing.

    Each subclass has the foreign keys ``organization``, ``project`` and ``environment``. The last two are null, unless
    the webhook is limited to a project or an environment.
    """

    events: models.JSONField[Any, Any] = models.JSONField(default=list)
    enabled = models.BooleanField(default=True)
    # Why the control plane disabled the webhook. Empty if it did not, or if the webhook was enabled again.
    disabled_reason = models.CharField(max_length=200, blank=True, editable=False)
    # When the attempts began to fail. Null if none has failed since the last success, since the webhook was enabled,
    # or (for a chat webhook) since its URL was changed.
    failing_since = models.DateTimeField(null=True, editable=False)
    bounded_columns = frozenset({"events"})

    class Meta:
        abstract = True


class DeliveryQuerySet(models.QuerySet[Any]):
    def due(self, now: datetime) -> Self:
        """Keep only deliveries to enabled webhooks whose next attempt is due at ``now``."""
        return self.filter(status=Outcome.PENDING, next_attempt_at__lte=now, webhook__enabled=True)


class Delivery(Row):
    """Base of the entries in delivery logs: the status of a delivery and its latest attempts."""

    status = models.CharField(max_length=10, choices=enum_choices(Outcome), default=Outcome.PENDING.value)
    # The number of attempts since the delivery was created or requested again. It determines the back-off.
    tries = models.PositiveSmallIntegerField(default=0)
    attempts: models.JSONField[Any, Any] = models.JSONField(default=list)
    next_attempt_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    bounded_columns = frozenset({"attempts"})

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        abstract = True


class Webhook(Receiver):
    """A subscription: a receiver's URL, and the events to send. Its secrets are encrypted under the master key."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="webhooks")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+")
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, null=True, related_name="+")
    url = models.CharField(max_length=2000)
    description = models.CharField(max_length=200, blank=True)
    secret = SealedField(context="webhook:{row.organization_id}:{row.pk}", noun="webhook secret")
    # After a rotation, deliveries are signed with both secrets until ``previous_secret_until``.
    previous_secret = SealedField(
        context="webhook:{row.organization_id}:{row.pk}", noun="previous webhook secret", null=True
    )
    previous_secret_until = models.DateTimeField(null=True, editable=False)

    def __str__(self) -> str:
        return self.description or self.url.split("/")[2]


class WebhookDelivery(Delivery):
    """An entry of the delivery log: the delivery of one event to one webhook, with its latest attempts."""

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event = models.ForeignKey(AuditEvent, on_delete=models.PROTECT, related_name="+")

    class Meta:
        verbose_name_plural = "webhook deliveries"
        indexes = [
            models.Index(fields=["webhook", "-id"], name="tenancy_webhookdelivery_log"),
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(status=Outcome.PENDING.value),
                name="tenancy_webhookdelivery_due",
            ),
            models.Index(fields=["created_at"], name="tenancy_webhookdelivery_age"),
        ]
        constraints = [one_of_constraint("status", Outcome, "tenancy_webhookdelivery_status")]

    def __str__(self) -> str:
        return f"{self.type} to {self.webhook}"

    @property
    def type(self) -> str:
        """The event's type, as the receiver sees it."""
        return type_of(self.event.action)
