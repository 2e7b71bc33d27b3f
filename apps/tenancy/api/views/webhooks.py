"""Webhooks, their delivery log, and the description of events in the OpenAPI document."""

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
    """The organization's webhooks, which receive signed events of deployments, approvals and fixtures."""

    tag = Tag.WEBHOOKS
    queryset = Webhook.objects.all()
    serializer_class = WebhookSerializer
    undigested_fields = frozenset({"token"})  # only the first response contains it
    filters = {
        **BY_CREATION,
        "enabled": flag_parameter(
            "enabled",
            description="If true, returns only enabled webhooks. If false, returns only disabled webhooks.",
        ),
    }
    operations = {
        "list": Operation(
            "listWebhooks",
            P.MANAGE_ORG_MEMBERSHIPS,
            "List webhooks",
            "Returns the organization's webhooks, newest first, without their secrets.",
        ),
        "create": Operation(
            "createWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Create a webhook",
            "Subscribes a URL to events of deployments, approvals and fixtures. Deliveries are signed as specified by "
            "Standard Webhooks. Only this response contains the secret (`token`).",
            example={"url": "https://hooks.example.com/byteor", "events": ["deployment.*"]},
            holds_secret=True,
        ),
        "retrieve": Operation(
            "getWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Get a webhook",
            "Returns the webhook without its secret.",
        ),
        "update": Operation(
            "updateWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Update a webhook",
            "Changes the fields in the body and keeps all others. Enabling a disabled webhook resumes its deliveries.",
            example={"events": ["*"]},
        ),
        "destroy": Operation(
            "deleteWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            "Delete a webhook",
            "Deletes the webhook and its delivery log. Pending deliveries are not sent.",
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


_BY_TYPE = choice_parameter(
    [*TYPES, "ping"], "event__action", description="Returns only deliveries of events of this type."
)


class WebhookDeliveryViewSet(ListModelMixin, OrganizationViewSet):
    """A webhook's deliveries of the last 30 days, with their latest attempts."""

    tag = Tag.WEBHOOKS
    queryset = WebhookDelivery.objects.select_related("event")
    serializer_class = WebhookDeliverySerializer
    filters = {
        **BY_CREATION,
        "status": choice_parameter(Outcome, "status"),
        "event_id": id_parameter("event_id"),
        # In the API, the type of a ping differs from the audit event's action.
        "type": replace(_BY_TYPE, read=lambda text: action_of(_BY_TYPE.read(text))),
    }
    lookup_url_kwarg = "delivery_id"
    operations = {
        "list": Operation(
            "listWebhookDeliveries",
            P.MANAGE_ORG_MEMBERSHIPS,
            "List deliveries of a webhook",
            "Returns the deliveries to this webhook, newest first, with the results of their latest attempts. "
            "Deliveries are kept for 30 days.",
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
            "The message is signed as specified by Standard Webhooks (standardwebhooks.com), whose libraries accept "
            "the webhook's secret unchanged. The headers are `webhook-id`, `webhook-timestamp` and "
            "`webhook-signature`. A signature is `v1,` followed by the base64 of the HMAC-SHA256 of "
            "`id.timestamp.body`. `webhook-signature` contains one signature for each valid secret, separated by "
            "spaces. Reject messages with an old timestamp. A message may arrive more than once; recognize it by its "
            "`webhook-id`. Return any 2xx status within 10 seconds to accept the message, or 410 to disable the "
            "webhook. After any other response, including a redirect, or without a response within 10 seconds, the "
            "message is retried for about a day. `Retry-After` delays a retry by up to a day."
        ),
        request=EventSerializer,
        responses={204: None},
    ),
)
