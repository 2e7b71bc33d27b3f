"""Views of webhooks and their delivery log, and the event in the OpenAPI document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiWebhook, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tenancy.api.base import OrganizationViewSet
from apps.tenancy.models import Webhook, WebhookDelivery
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.webhooks import subscriptions
from apps.tenancy.webhook_events import TYPES, WILDCARDS, Outcome, action_of
from byteor_cloud.api.fields import IdField, JSONObjectField, ModelSerializer, StrictSerializer, TextField
from byteor_cloud.api.filters import BY_CREATION
from byteor_cloud.api.mixins import Created, CreateMixin, DestroyMixin, ListModelMixin, RetrieveMixin, UpdateMixin
from byteor_cloud.api.operations import Operation, Tag
from byteor_cloud.api.parameters import choice_parameter, flag_parameter, id_parameter
from byteor_cloud.api.schema.responses import with_secret
from byteor_cloud.errors import Conflict, NotFound, PreconditionFailed


class WebhookSerializer(ModelSerializer):
    url = TextField(max_length=2000)
    events = serializers.ListField(
        child=serializers.ChoiceField([*WILDCARDS, *TYPES]), allow_empty=False, min_length=1, max_length=100
    )
    description = TextField(required=False, allow_blank=True, max_length=200)
    enabled = serializers.BooleanField(required=False)
    project_id = IdField(required=False, allow_null=True)
    environment_id = IdField(required=False, allow_null=True)

    descriptions = {
        "url": "The HTTPS address that receives the events.",
        "events": "The event types to send. A type that ends in `.*` stands for all events of that kind.",
        "description": "What the webhook is for.",
        "enabled": "Whether the service sends events to the webhook.",
        "disabled_reason": "Why the service disabled the webhook. Empty if the service did not disable it.",
        "project_id": "Send only events of this project. Null for the events of all projects.",
        "environment_id": "Send only events of this environment. Null for the events of all environments.",
        "failing_since": "Since when every delivery has failed. Null if the last delivery succeeded.",
        "previous_secret_until": (
            "Until when deliveries are also signed with the previous secret. Null if there is no previous secret."
        ),
    }

    class Meta:
        model = Webhook
        fields = [
            "id", "url", "events", "description", "enabled", "disabled_reason", "project_id", "environment_id",
            "failing_since", "previous_secret_until", "created_at", "updated_at",
        ]  # fmt: skip


class AttemptSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField()
    duration_ms = serializers.IntegerField()
    descriptions = {
        "at": "When the attempt was made.",
        "status": "The status code of the response. Null if there was none.",
        "error": "Why the attempt failed. Empty if it succeeded.",
        "duration_ms": "The time until the response in milliseconds.",
    }


class WebhookDeliverySerializer(ModelSerializer):
    event_id = serializers.UUIDField(read_only=True)
    type = serializers.CharField(read_only=True)
    attempts = AttemptSerializer(many=True, read_only=True)

    descriptions = {
        "event_id": "The id of the event, sent as `webhook-id`.",
        "type": "The type of the event.",
        "status": "Whether the delivery is waiting, was delivered, or failed for good.",
        "attempts": "The attempts so far.",
        "next_attempt_at": "When the next attempt is due. Null if no attempt follows.",
        "finished_at": (
            "When the event was delivered, or when the delivery failed for good. Null while the delivery is waiting."
        ),
    }

    class Meta:
        model = WebhookDelivery
        fields = [
            "id", "event_id", "type", "status", "attempts", "next_attempt_at", "finished_at", "created_at",
        ]  # fmt: skip


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
            """List webhooks.

            Returns the organization's webhook subscriptions, newest first.
            """,
        ),
        "create": Operation(
            "createWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Create a webhook.

            Subscribes a URL to events of deployments and approvals. Deliveries are signed as Standard Webhooks
            describes. The response is the only one that contains the secret (`token`).
            """,
            example={"url": "https://hooks.example.com/byteor", "events": ["deployment.*"]},
            holds_secret=True,
        ),
        "retrieve": Operation(
            "getWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Get a webhook.

            Returns one webhook subscription, without its secret.
            """,
        ),
        "update": Operation(
            "updateWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Update a webhook.

            Changes the fields in the body and keeps the others. Enabling a disabled webhook starts its deliveries
            again.
            """,
            example={"events": ["*"]},
        ),
        "destroy": Operation(
            "deleteWebhook",
            P.MANAGE_ORG_MEMBERSHIPS,
            """Delete a webhook.

            Deletes the webhook. Deliveries that are waiting are not sent.
            """,
            errors=(PreconditionFailed,),
        ),
    }

    def perform_create(self, data: dict[str, Any]) -> Created:
        webhook, secret = subscriptions.create(organization=self.organization, actor=self.actor, **data)
        return Created(webhook, {"token": secret})

    def perform_update(self, row: Webhook, data: dict[str, Any]) -> Model:
        return subscriptions.update(row, data, actor=self.actor, expected_revision=self.expected_revision)

    def perform_destroy(self, row: Webhook) -> None:
        subscriptions.delete(row, actor=self.actor, expected_revision=self.expected_revision)

    @Operation(
        "rotateWebhookSecret",
        P.MANAGE_ORG_MEMBERSHIPS,
        responses={201: with_secret(WebhookSerializer)},
        holds_secret=True,
    )
    def rotate_secret(self, request: Request, **kwargs: Any) -> Response:
        """Rotate a webhook's secret.

        Returns a new secret. For 24 hours, each delivery is signed with both the new and the previous secret, so that
        receivers can change to the new one without losing a delivery.
        """
        webhook, secret = subscriptions.rotate_secret(self.get_object(), actor=self.actor)
        return self.represent(webhook, status=201, token=secret)

    @Operation("testWebhook", P.MANAGE_ORG_MEMBERSHIPS, responses={202: WebhookDeliverySerializer}, errors=(Conflict,))
    def test(self, request: Request, **kwargs: Any) -> Response:
        """Send a test event to a webhook.

        Sends an event of type `ping`. The result appears in the list of deliveries.
        """
        delivery = subscriptions.ping(self.get_object(), actor=self.actor)
        return Response(WebhookDeliverySerializer(delivery).data, status=202)


_BY_TYPE = choice_parameter([*TYPES, "ping"], "event__action", description="Only deliveries of this event type.")


class WebhookDeliveryViewSet(ListModelMixin, RetrieveMixin, OrganizationViewSet):
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
            """List deliveries of a webhook.

            Returns the events sent to this webhook and the result of each attempt, newest first. Deliveries are kept
            for 30 days.
            """,
        ),
    }

    def scoped(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        webhook = Webhook.objects.filter(pk=self.kwargs["id"], organization=self.organization)
        if not webhook.exists():
            raise NotFound("There is no resource at this URL.")
        return queryset.filter(webhook=self.kwargs["id"])

    @Operation(
        "redeliverWebhookDelivery",
        P.MANAGE_ORG_MEMBERSHIPS,
        responses={202: WebhookDeliverySerializer},
        errors=(Conflict,),
    )
    def redeliver(self, request: Request, **kwargs: Any) -> Response:
        """Repeat a delivery.

        Sends the event again with the same `webhook-id`, so that a receiver can recognize a duplicate.
        """
        return self.represent(subscriptions.redeliver(self.get_object(), actor=self.actor), status=202)


class EventResourceSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["deployment", "approval", "webhook"])
    id = serializers.CharField()
    url = serializers.CharField()
    descriptions = {
        "kind": "The kind of resource.",
        "id": "The resource's id.",
        "url": "The URL at which the API returns the resource.",
    }


class EventActorSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField()
    display = serializers.CharField()
    descriptions = {
        "kind": "The kind of actor: a user, a key, an agent, or the system.",
        "display": "The actor's name or e-mail address.",
    }


class EventSerializer(StrictSerializer):
    """The body of a webhook message: one event."""

    id = serializers.UUIDField()
    type = serializers.ChoiceField([*TYPES, "ping"])
    created_at = serializers.DateTimeField()
    organization_id = serializers.UUIDField()
    project_id = serializers.UUIDField(allow_null=True)
    environment_id = serializers.UUIDField(allow_null=True)
    resource = EventResourceSerializer()
    actor = EventActorSerializer()
    changes = JSONObjectField()
    descriptions = {
        "id": "The audit event's id, also sent as `webhook-id`. It stays the same when the event is sent again.",
        "type": "The type of the event.",
        "created_at": "When the event happened.",
        "resource": "The resource that the event is about.",
        "actor": "Who caused the event.",
        "changes": "What changed, by field.",
    }


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
