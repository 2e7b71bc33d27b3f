"""Chat webhooks and their deliveries."""

from __future__ import annotations

from typing import Any

from apps.notifications.models import ChatDelivery, ChatWebhook
from apps.notifications.services.chat import webhooks
from tests.permissions import ADMIN, PROJECT
from tests.resources import Act, Call, Further, O, Place, Resource, Table

_URL = "https://chat.example/hooks/0123456789abcdef"
# The form of the acts that create a chat webhook.
NEW = {"name": "ops", "format": "slack", "url": _URL, "events": "*"}


def _create(place: Place, scope: Any, name: str) -> ChatWebhook:
    return webhooks.create(
        scope=scope, name=f"{name} {place.suffix}", format="slack", url=_URL, events=["*"],
        actor=place.world.admin.actor,
    )  # fmt: skip


def chat_webhook(place: Place) -> ChatWebhook:
    return _create(place, place.environment, "of environment")


def disabled(place: Place) -> ChatWebhook:
    made = _create(place, place.environment.project, "disabled")
    return webhooks.update(made, {"enabled": False}, actor=place.world.admin.actor)


def of_organization(place: Place) -> ChatWebhook:
    return _create(place, place.world.organization, "of organization")


def chat_delivery(place: Place) -> ChatDelivery:
    return ChatDelivery.objects.create(webhook=place.get(chat_webhook), status="delivered")


def _in_project(place: Place) -> dict[str, Any]:
    return {"project_id": str(place.environment.project_id)}


def _in_organization(place: Place) -> dict[str, Any]:
    return {"name": "everything", "format": "mattermost", "url": _URL, "events": ["*"]}


RESOURCE = Resource(
    calls=(
        Call("listChatWebhooks", "GET", O + "/chat-webhooks", PROJECT, in_any_project=True),
        Call(
            "createChatWebhook", "POST", O + "/chat-webhooks", PROJECT, 201, in_any_project=True, values=_in_project,
            further={"of the whole organization": Further(ADMIN, _in_organization)},
        ),
        Call("getChatWebhook", "GET", O + "/chat-webhooks/{id}", PROJECT, in_any_project=True),
        Call("updateChatWebhook", "PUT", O + "/chat-webhooks/{id}", PROJECT, in_any_project=True),
        Call("deleteChatWebhook", "DELETE", O + "/chat-webhooks/{id}", PROJECT, 204, in_any_project=True),
        Call(
            "testChatWebhook", "POST", O + "/chat-webhooks/{id}/test", PROJECT, 202, has_body=False,
            in_any_project=True,
        ),
        Call("listChatDeliveries", "GET", O + "/chat-webhooks/{id}/deliveries", PROJECT, in_any_project=True),
    ),
    tables=(
        Table(
            "notifications.chatwebhook", PROJECT, chat_webhook, "Chat webhooks", in_organization=ADMIN,
            acts={
                "test": Act("testChatWebhook"),
                "edit": Act("updateChatWebhook", {"name": "another", "format": "slack", "events": "*"}),
                "enable": Act("updateChatWebhook", on=disabled),
                "disable": Act("updateChatWebhook", on=of_organization),
                "delete": Act("deleteChatWebhook"),
            },
            large=frozenset({"url"}), short={"events": "at most 15 events"},
        ),
        Table(
            "notifications.chatdelivery", PROJECT, chat_delivery, in_organization=ADMIN,
            short={"attempts": "the last 50 attempts"},
        ),
    ),
    ids={"chat-webhooks": chat_webhook},
    more=(chat_delivery,),
)  # fmt: skip
