"""Webhooks and their delivery log, and the event in the OpenAPI document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiWebhook, extend_schema

from apps.tenancy.api import commands as c
from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.api.serializers.webhooks import EventSerializer, WebhookDeliverySerializer, WebhookSerializer
from apps.tenancy.models import Webhook, WebhookDelivery
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.webhooks import subscriptions
from apps.tenancy.webhook_events import TYPES, Outcome, action_of
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, flag_parameter, id_parameter
from byteor_cloud.errors import NotFound, PreconditionFailed


class WebhookViewSet(ListModelMixin, CreateMixin, RetrieveMixin, UpdateMixin, DestroyMixin, OrganizationViewSet):
    """The organization's webhooks, to which events of deployments and approvals are sent, with a signature."""

    tag = Tag.WEBHOOKS
    queryset = Webhook.objects.all()
    serializer_class = WebhookSerializer
    filters = {**BY_CREATION, "enabled": flag_parameter("enabled")}
    operations = {
        "list": Operation(
            "listWebhooks",
            P.MANAGE_ORG_MEMBERSHIPS,
            "List webhooks",
            "Returns the organization's webhook subscriptions, newest first.",
        ),
        "create": Operation(
            "createWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Create a webhook",
            "Subscribes a URL to events of deployments and approvals. Deliveries are signed as Standard Webhooks "
            "describes. The response is the only one that contains the secret (`token`).",
            example={"url": "https://hooks.example.com/byteor", "events": ["deployment.*"]},
            holds_secret=True,
        ),
        "retrieve": Operation(
            "getWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Get a webhook",
            "Returns one webhook subscription, without its secret.",
        ),
        "update": Operation(
            "updateWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Update a webhook",
            "Changes the fields in the body and keeps the others. Enabling a disabled webhook starts its deliveries "
            "again.",
            example={"events": ["*"]},
        ),
        "destroy": Operation(
            "deleteWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Delete a webhook",
            "Deletes the webhook. Deliveries that are waiting are not sent.",
            errors=(PreconditionFailed,),
        ),
    }
    commands = (c.rotate_secret, c.test)

    def perform_create(self, data: dict[str, Any]) -> Created:
        webhook, secret = subscriptions.create(organization=self.organization, actor=self.actor, **data)
        return Created(webhook, {"token": secret})

    def perform_update(self, row: Webhook, data: dict[str, Any]) -> Model:
        return subscriptions.update(row, data, actor=self.actor, expected_revision=self.expected_revision)

    def perform_destroy(self, row: Webhook) -> None:
        subscriptions.delete(row, actor=self.actor, expected_revision=self.expected_revision)


_BY_TYPE = choice_parameter([*TYPES, "ping"], "event__action", description="Only deliveries of this event type.")


class WebhookDeliveryViewSet(ListModelMixin, OrganizationViewSet):
    """A webhook's deliveries of the last 30 days, with their attempts."""

    tag = Tag.WEBHOOKS
    queryset = WebhookDelivery.objects.select_related("event")
    serializer_class = WebhookDeliverySerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(Outcome, "status"),
        "event_id": id_parameter("event_id"),
        # The receiver sees a ping under another type than the audit event's action.
        "type": replace(_BY_TYPE, read=lambda text: action_of(_BY_TYPE.read(text))),
    }
    lookup_url_kwarg = "delivery_id"
    operations = {
        "list": Operation(
            "listWebhookDeliveries",
            P.MANAGE_ORG_MEMBERSHIPS,
            "List deliveries of a webhook",
            "Returns the events sent to this webhook and the result of each attempt, newest first. Deliveries are kept "
            "for 30 days.",
        ),
    }
    commands = (c.redeliver,)

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        webhook = Webhook.objects.filter(pk=self.kwargs["id"], organization=self.organization)
        if not webhook.exists():
            raise NotFound("There is no resource at this URL.")
        return queryset.filter(webhook=self.kwargs["id"])


EVENT = OpenApiWebhook(
    "event",
    extend_schema(
        tags=[Tag.WEBHOOKS],
        summary="An event sent to a webhook",
        description=(
            "The message is signed by the Standard Webhooks convention (standardwebhooks.com), whose libraries accept "
            "the webhook's secret as it is. The headers are `webhook-id`, `webhook-timestamp` and "
            "`webhook-signature`: `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`, one for each valid "
            "secret, separated by spaces. Reject a message with an old timestamp. A message may arrive more than "
            "once; recognize it by its `webhook-id`. Answer any 2xx within 10 seconds to accept the message, or 410 "
            "to disable the webhook. After any other answer, including a redirect, the message is sent again for "
            "about a day, and not before the time in `Retry-After`."
        ),
        request=EventSerializer,
        responses={204: None},
    ),
)
