"""The URLs of notifications, notification settings and chat webhooks, below /api/v1."""

from __future__ import annotations

from django.urls import URLPattern

from apps.notifications.api import chat_views, views
from byteor_cloud.api.routing import route

urlpatterns: list[URLPattern] = [
    route("me/notifications", views.NotificationViewSet, get="list", patch="mark"),
    route("me/notification-settings", views.NotificationSettingsViewSet, get="retrieve", put="update"),
    route("orgs/<uuid:org_id>/chat-webhooks", chat_views.ChatWebhookViewSet, get="list", post="create"),
    route(
        "orgs/<uuid:org_id>/chat-webhooks/<uuid:id>",
        chat_views.ChatWebhookViewSet,
        get="retrieve",
        put="update",
        delete="destroy",
    ),
    route("orgs/<uuid:org_id>/chat-webhooks/<uuid:id>/test", chat_views.ChatWebhookViewSet, post="test"),
    route("orgs/<uuid:org_id>/chat-webhooks/<uuid:id>/deliveries", chat_views.ChatDeliveryViewSet, get="list"),
]
