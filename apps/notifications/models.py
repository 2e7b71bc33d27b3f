"""Notifications, notification settings, chat webhooks with their deliveries, and the state of sweeps."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from django.db import models
from django.db.models import Exists, OuterRef, Q

from apps.tenancy.message_types import MessageType, Timing
from apps.tenancy.models import (
    Delivery,
    Environment,
    Membership,
    MessageEvent,
    Organization,
    Project,
    Receiver,
    Revisioned,
    Row,
    User,
    enum_choices,
    one_of_constraint,
)
from apps.tenancy.models.sealed_field import SealedField
from apps.tenancy.permissions import Role
from apps.tenancy.webhook_events import Outcome

# Only an org_admin may see events of these types that belong to no project, except the expiry of a user token.
_FOR_ADMINS = (MessageType.WEBHOOK_FAILING, MessageType.KEY_EXPIRES, MessageType.QUOTA_NEAR)


class NotificationQuerySet(models.QuerySet["Notification"]):
    def visible(self) -> Self:
        """Exclude notifications that the person may no longer see, for example about a project that the person left."""
        project = OuterRef("event__project")
        member = Membership.objects.filter(
            Q(project=None) | Q(project=project), user=OuterRef("user"), organization=OuterRef("event__organization")
        )
        # For an event that belongs to no project, a role in any project is enough, unless the event is for admins.
        of_organization = Membership.objects.filter(user=OuterRef("user"), organization=OuterRef("event__organization"))
        of_admins = Q(event__type__in=_FOR_ADMINS) & ~Q(event__resource_kind="user_token")
        return self.filter(
            Exists(member) | Q(Exists(of_organization), event__project=None),
            ~of_admins | Q(event__project__isnull=False) | Exists(of_organization.filter(role=Role.ORG_ADMIN)),
            event__environment__deleted_at=None,
            event__project__deleted_at=None,
        )

    def due(self, now: datetime) -> Self:
        """Keep only notifications whose e-mail is due at ``now``."""
        return self.filter(mail_due_at__lte=now)


class Notification(Row):
    """The message about one event to one person: an entry in the bell and, depending on the settings, an e-mail."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    event = models.ForeignKey(MessageEvent, on_delete=models.CASCADE, related_name="notifications", db_index=False)
    read_at = models.DateTimeField(null=True)
    mail = models.CharField(max_length=5, choices=enum_choices(Timing), default=Timing.OFF.value)
    # When the next attempt to send the e-mail is due. Null if there is none to send, or if it was sent or given up.
    mail_due_at = models.DateTimeField(null=True)
    mail_tries = models.PositiveSmallIntegerField(default=0)
    mailed_at = models.DateTimeField(null=True)
    # Why the latest attempt failed, or why no further attempt is made. May be empty.
    mail_error = models.CharField(max_length=200, blank=True, editable=False)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["event", "user"], name="notifications_notification_unique"),
            one_of_constraint("mail", Timing, "notifications_notification_mail"),
        ]
        indexes = [
            models.Index(fields=["user", "-id"], name="notifications_notification_own"),
            models.Index(fields=["user"], condition=Q(read_at=None), name="notifications_unread"),
            models.Index(fields=["mail_due_at"], condition=Q(mail_due_at__isnull=False), name="notifications_mail_due"),
            models.Index(fields=["user", "mailed_at"], condition=Q(mailed_at__isnull=False), name="notifications_sent"),
        ]

    def __str__(self) -> str:
        return str(self.event)


class NotificationSettings(Revisioned):
    """When a person gets e-mails: ``{event: {environment id or "*": timing}}``. Without a row, defaults apply."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="+")
    choices: models.JSONField[Any, Any] = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"notification settings of {self.user}"


class ChatFormat(StrEnum):
    """The kind of chat server, which determines the format of the messages."""

    SLACK = "slack"
    MATTERMOST = "mattermost"


class ChatWebhook(Receiver):
    """A chat webhook, which posts messages to an incoming webhook of a chat server.

    The URL contains a secret of that server, so it is encrypted. If the webhook is limited to an environment,
    ``project`` is that environment's project.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="chat_webhooks")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="+")
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=200)
    format = models.CharField(max_length=10, choices=enum_choices(ChatFormat))
    url = SealedField(context="chat_webhook:{row.organization_id}:{row.pk}", noun="chat webhook URL")
    host = models.CharField(max_length=260, editable=False)  # the host of the URL, which is not secret

    class Meta:
        constraints = [one_of_constraint("format", ChatFormat, "notifications_chatwebhook_format")]

    def __str__(self) -> str:
        return self.name


class ChatDelivery(Delivery):
    """The delivery of the message about one event to one chat webhook, or of a test message if ``event`` is null."""

    webhook = models.ForeignKey(ChatWebhook, on_delete=models.CASCADE, related_name="deliveries")
    event = models.ForeignKey(MessageEvent, on_delete=models.CASCADE, null=True, related_name="+")

    class Meta:
        verbose_name_plural = "chat deliveries"
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(status=Outcome.PENDING.value),
                name="notifications_chatdelivery_due",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["webhook", "event"], name="notifications_chatdelivery_unique"),
            one_of_constraint("status", Outcome, "notifications_chatdelivery_status"),
        ]

    def __str__(self) -> str:
        return f"{self.event or 'test'} to {self.webhook}"


class NotifiedState(models.Model):
    """A lasting state that a sweep has already found, such as an agent that is offline.

    A sweep inserts the row when it finds the state, usually together with an event, and deletes it when the state is
    over. Later sweeps therefore record no other event for the same occurrence of the state. When the resource is
    deleted, the next sweep deletes the row.
    """

    # The type of the event, followed by the name of the state if a resource can be in several states.
    kind = models.CharField(max_length=60)
    resource_id = models.UUIDField()
    at = models.DateTimeField()  # when the sweep found the state

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "resource_id"], name="notifications_notifiedstate_unique")
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.resource_id}"


class AgentWatch(models.Model):
    """When the sweep of agents last ran, and until when agents may have been unable to send heartbeats.

    The table has at most one row.
    """

    ONLY = 1

    id = models.SmallIntegerField(primary_key=True, default=ONLY)
    looked_at = models.DateTimeField(null=True)
    reachable_since = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="notifications_agentwatch_only_row")]

    def __str__(self) -> str:
        return f"looked at {self.looked_at}"
