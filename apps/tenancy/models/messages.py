"""Events about which people get messages."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from apps.tenancy.message_types import EventOutcome, MessageType
from apps.tenancy.models.base import Row, enum_choices, one_of_constraint
from apps.tenancy.models.organizations import Environment, Organization, Project


class MessageEvent(Row):
    """An event about which people get messages, written in the transaction of its cause.

    ``apps.notifications`` finds out who gets the messages, and sends them.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, null=True, related_name="+")
    type = models.CharField(max_length=30, choices=enum_choices(MessageType))
    # What the message is about, for example ("approval", its id).
    resource_kind = models.CharField(max_length=40)
    resource_id = models.CharField(max_length=80)
    # Events with the same type, environment and subject count as repetitions of each other. Empty: all of the type.
    subject = models.CharField(max_length=200, blank=True)
    # The user who caused the event, who gets no message about it. Null for machines and the service.
    actor_id = models.UUIDField(null=True)
    actor_display = models.CharField(max_length=300, blank=True)
    # Values that the message needs and that cannot be read later. They contain no secret and no payload.
    data = models.JSONField(default=dict)
    # No two events have the same key. A sweep sets it, so that it notes a state only once.
    key = models.CharField(max_length=200, null=True)
    # The number of events for which this one stands.
    count = models.PositiveIntegerField(default=1)
    outcome = models.CharField(
        max_length=10, choices=enum_choices(EventOutcome), default=EventOutcome.PENDING.value, editable=False
    )
    # The message in one sentence, and the path of the page that it links to. Empty until people were told.
    text = models.CharField(max_length=500, blank=True, editable=False)
    path = models.CharField(max_length=300, blank=True, editable=False)
    handled_at = models.DateTimeField(null=True, editable=False)
    # The number of attempts to handle the event that raised an error.
    tries = models.PositiveSmallIntegerField(default=0, editable=False)
    # The event that stands for this one, if its outcome is ``grouped`` and people have been told since.
    summary = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+", editable=False)
    bounded_columns = frozenset({"data"})

    class Meta:
        indexes = [
            models.Index(
                fields=["organization", "id"],
                condition=Q(outcome=EventOutcome.PENDING.value),
                name="tenancy_messageevent_pending",
            ),
            # Counts the recent messages of a kind, and finds the events that no message stands for yet.
            models.Index(
                fields=["organization", "type", "environment", "subject", "outcome", "handled_at"],
                name="tenancy_messageevent_recent",
            ),
            # Finds the last incident of a kind, each time an incident bundle is verified.
            models.Index(
                fields=["environment", "subject", "id"],
                condition=Q(type__in=[MessageType.INCIDENT_NEW.value, MessageType.INCIDENT_REOPENED.value]),
                name="tenancy_messageevent_incident",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["key"], name="tenancy_messageevent_unique_key"),
            one_of_constraint("type", MessageType, "tenancy_messageevent_type"),
            one_of_constraint("outcome", EventOutcome, "tenancy_messageevent_outcome"),
        ]

    def __str__(self) -> str:
        return self.text or self.type
