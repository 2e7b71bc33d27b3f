"""The URLs of notifications, below /api/v1."""

from __future__ import annotations

from django.urls import URLPattern

from apps.notifications.api import views
from byteor_cloud.api.routing import route

urlpatterns: list[URLPattern] = [
    route("me/notifications", views.NotificationViewSet, get="list", patch="mark"),
    route("me/notification-settings", views.NotificationSettingsViewSet, get="retrieve", put="update"),
]
