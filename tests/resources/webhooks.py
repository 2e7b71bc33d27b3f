"""Webhook subscriptions and their delivery log."""

from __future__ import annotations

from apps.tenancy.models import Webhook, WebhookDelivery
from apps.tenancy.services.webhooks import subscriptions
from tests.permissions import ADMIN
from tests.resources import Act, Call, O, Place, Resource, Table
from tests.resources.audit_events import event

# The form of the acts that create or edit a webhook.
NEW = {"url": "https://hooks.example/new", "description": "pager", "events": "deployment.*", "scope": ""}


def webhook(place: Place) -> Webhook:
    made, _ = subscriptions.create(
        organization=place.world.organization, url=f"https://{place.world.name}.example/{place.suffix}",
        events=["approval.expire"], actor=place.world.admin.actor,
    )  # fmt: skip
    return made


def disabled(place: Place) -> Webhook:
    return subscriptions.update(webhook(place), {"enabled": False}, actor=place.world.admin.actor)


def another(place: Place) -> Webhook:
    return webhook(place)


def delivery(place: Place) -> WebhookDelivery:
    return WebhookDelivery.objects.create(webhook=place.get(webhook), event=place.get(event), status="delivered")


RESOURCE = Resource(
    calls=(
        Call("listWebhooks", "GET", O + "/webhooks", ADMIN),
        Call("createWebhook", "POST", O + "/webhooks", ADMIN, 201),
        Call("getWebhook", "GET", O + "/webhooks/{id}", ADMIN),
        Call("updateWebhook", "PUT", O + "/webhooks/{id}", ADMIN),
        Call("deleteWebhook", "DELETE", O + "/webhooks/{id}", ADMIN, 204),
        Call("rotateWebhookSecret", "POST", O + "/webhooks/{id}/rotate-secret", ADMIN, 201, has_body=False),
        Call("testWebhook", "POST", O + "/webhooks/{id}/test", ADMIN, 202, has_body=False),
        Call("listWebhookDeliveries", "GET", O + "/webhooks/{id}/deliveries", ADMIN),
        Call(
            "redeliverWebhookDelivery", "POST", O + "/webhooks/{id}/deliveries/{delivery_id}/redeliver", ADMIN, 202,
            has_body=False,
        ),
    ),
    tables=(
        Table(
            "tenancy.webhook", ADMIN, webhook, "Webhooks",
            acts={
                "test": Act("testWebhook"),
                "edit": Act("updateWebhook", NEW),
                "rotate_secret": Act("rotateWebhookSecret"),
                "enable": Act("updateWebhook", on=disabled),
                "disable": Act("updateWebhook", on=another),
                "delete": Act("deleteWebhook"),
            },
            large=frozenset({"secret", "previous_secret"}), short={"events": "at most 100 event types"},
        ),
        Table(
            "tenancy.webhookdelivery", ADMIN, delivery, acts={"redeliver": Act("redeliverWebhookDelivery")},
            short={"attempts": "the last 50 attempts"},
        ),
    ),
    ids={"webhooks": webhook, "delivery_id": delivery},
)  # fmt: skip
