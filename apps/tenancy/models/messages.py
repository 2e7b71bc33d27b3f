"""Events about which people are notified."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models.base import Row, enum_choices, one_of_constraint
from apps.tenancy.models.organizations import Environment, Organization, Project


class MessageEvent(Row):
    """An event about which people are notified. It is inserted in the transaction of its cause, or by a sweep.

    ``apps.notifications`` finds the people and sends the messages.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, null=True, related_name="+")
    type = models.CharField(max_length=30, choices=enum_choices(MessageType))
    # The resource that the event is about, for example ("approval", its id).
    resource_kind = models.CharField(max_length=40)
    resource_id = models.CharField(max_length=80)
    # Events with the same organization, type, environment and subject are repetitions of each other.
    subject = models.CharField(max_length=200, blank=True)
    # The user who caused the event, and who is not notified about it, except by a summary. Null if an agent, an API key
    # or the service caused it.
    actor_id = models.UUIDField(null=True)
    actor_display = models.CharField(max_length=300, blank=True)
    # Values for the message that cannot be read from other tables later. They contain no secret and no payload.
    data = models.JSONField(default=dict)
    # Unique. Some sweeps set it so that they record each event only once.
    key = models.CharField(max_length=200, null=True)
    # The number of events that this one covers: for a summary, those of its group, otherwise 1.
    count = models.PositiveIntegerField(default=1)
    outcome = models.CharField(
        max_length=10, choices=enum_choices(EventOutcome), default=EventOutcome.PENDING.value, editable=False
    )
    # The sentence of the message, and the path of the page that it links to. Empty unless the outcome is ``notified``.
    text = models.CharField(max_length=500, blank=True, editable=False)
    path = models.CharField(max_length=300, blank=True, editable=False)
    handled_at = models.DateTimeField(null=True, editable=False)
    # The number of failed attempts to handle the event. Attempts that an outage interrupted do not count.
    tries = models.PositiveSmallIntegerField(default=0, editable=False)
    retry_at = models.DateTimeField(null=True, editable=False)  # when the next attempt is due, after a failed one
    # The event that covers this one, if the outcome is ``grouped`` and the summary was already created.
    summary = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+", editable=False)
    bounded_columns = frozenset({"data"})

    class Meta:
        indexes = [
            models.Index(
                fields=["organization", "id"],
                condition=Q(outcome=EventOutcome.PENDING.value),
                name="tenancy_messageevent_pending",
            ),
            # Counts the recent repetitions of an event, and finds grouped events without a summary.
            models.Index(
                fields=["organization", "type", "environment", "subject", "outcome", "handled_at"],
                name="tenancy_messageevent_recent",
            ),
            # Finds the latest event about the incident of a verified incident bundle.
            models.Index(
                fields=["environment", "subject", "id"],
                condition=Q(type__in=[MessageType.INCIDENT_NEW.value, MessageType.INCIDENT_REOPENED.value]),
                name="tenancy_messageevent_incident",
            ),
            # Finds the incident of a capture.
            models.Index(
                fields=["resource_id"],
                condition=Q(type__in=[MessageType.INCIDENT_NEW.value, MessageType.INCIDENT_REOPENED.value]),
                name="tenancy_messageevent_capture",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["key"], name="tenancy_messageevent_unique_key"),
            one_of_constraint("type", MessageType, "tenancy_messageevent_type"),
            one_of_constraint("outcome", EventOutcome, "tenancy_messageevent_outcome"),
        ]

    def __str__(self) -> str:
        return self.text or self.type

    @property
    def is_summary(self) -> bool:
        """Whether the event covers a group of events. Only then, ``data`` has the time of the first one (``since``)."""
        return "since" in self.data
